"""What the host does in the background: in order, never too much at once, and no error is lost."""

import threading

import jax
import numpy as np
import pytest

from jdet.evaluation.background import Background
from jdet.evaluation.evaluate import evaluate_stream
from jdet.types import Batch, Detections, Example


def test_calls_are_made_in_order_and_no_more_than_so_many_wait():
    done, gate = [], threading.Event()
    with Background(2) as background:
        background.submit(gate.wait, 10)
        background.submit(done.append, 0)
        third = threading.Thread(target=background.submit, args=(done.append, 1))
        third.start()
        third.join(0.05)
        assert third.is_alive() and not done
        gate.set()
        third.join(10)
        for number in range(2, 50):
            background.submit(done.append, number)
        background.wait()
        assert done == list(range(50))
        background.submit(done.append, 50)
    assert done == list(range(51))


def test_an_error_surfaces_once_and_what_waits_behind_it_is_dropped():
    background, done, gate = Background(3), [], threading.Event()
    background.submit(gate.wait, 10)
    background.submit(int, "x")
    gate.set()
    with pytest.raises(ValueError, match="'x'"):
        background.wait()
    background.submit(done.append, 0)
    background.wait()
    assert done == [0]

    with pytest.raises(ValueError, match="'y'"):
        with background:
            background.submit(int, "y")

    gate, left = threading.Event(), []
    with pytest.raises(KeyboardInterrupt):
        with Background(2) as interrupted:
            interrupted.submit(gate.wait, 10)
            interrupted.submit(left.append, 0)
            threading.Timer(0.05, gate.set).start()
            raise KeyboardInterrupt
    assert not left


class Four:
    """Four images without objects."""

    class_names = ("one",)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        none = np.zeros(0)
        return Example(str(index), b"", none.reshape(0, 4), none.astype(int), none == 1, none)


class Scored:
    """Notes every image, and in which thread; stumbles over one."""

    def __init__(self, stumbles=None):
        self.seen, self.threads, self.stumbles = [], set(), stumbles

    def add(self, detections, ground_truth):
        if detections.id == self.stumbles:
            raise OSError("no space")
        self.seen.append((detections.id, ground_truth.id))
        self.threads.add(threading.current_thread())

    def result(self):
        return {"images": len(self.seen)}


def batches():
    for start in (0, 2):
        batch = Batch.of_images(np.zeros((2, 8, 8, 3), np.uint8))
        yield batch._replace(index=np.arange(start, start + 2, dtype=np.int32))


def detect(variables, images, sizes):
    return Detections(
        boxes=np.zeros((2, 3, 4), np.float32),
        scores=np.zeros((2, 3), np.float32),
        labels=np.zeros((2, 3), np.int32),
        valid=np.zeros((2, 3), bool),
    )


def test_images_are_scored_in_the_background_in_order():
    scored = Scored()
    assert evaluate_stream(detect, {}, batches(), Four(), [scored]) == {"images": 4}
    assert scored.seen == [(str(i), str(i)) for i in range(4)]
    assert len(scored.threads) == 1 and threading.current_thread() not in scored.threads


def test_several_processes_score_where_they_exchange(monkeypatch):
    """What they exchange goes through the devices, in one order, which only one thread can keep."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr("jdet.parallel.broadcast.gather", lambda value: [value])
    monkeypatch.setattr("jdet.parallel.broadcast.from_main", lambda action: action())
    scored = Scored()
    assert evaluate_stream(detect, {}, batches(), Four(), [scored]) == {"images": 4}
    assert scored.seen == [(str(i), str(i)) for i in range(4)]
    assert scored.threads == {threading.current_thread()}


@pytest.mark.parametrize("stumbles", ["0", "3"])
def test_what_goes_wrong_while_scoring_ends_the_evaluation(stumbles):
    with pytest.raises(OSError, match="no space"):
        evaluate_stream(detect, {}, batches(), Four(), [Scored(stumbles)])
