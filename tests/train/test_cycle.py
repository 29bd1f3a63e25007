"""The steps of a run: their order, their compilations, their input, and what ends them."""

import itertools
import json
import signal
import time

import jax.numpy as jnp
import numpy as np
import pytest

from jdet.train import loop, step
from jdet.train.checkpoints.checkpoint import Checkpoints
from jdet.train.cycle import Cycle
from jdet.types import ConfigError, DataError, Evaluated
from tests.train import fake
from tests.train.test_loop import train


def test_errors_of_the_stream_surface_and_close_it(tmp_path):
    closed = []

    class Stream:
        def __iter__(self):
            yield from (fake.batch(k) for k in range(3))

        def close(self):
            closed.append(True)

    with pytest.raises(DataError, match="ended before step 3"):
        train(tmp_path, stream=lambda start: Stream())
    assert closed

    def broken(start):
        yield fake.batch(0)
        raise DataError("a.jpg is truncated")

    with pytest.raises(DataError, match="a.jpg is truncated"):
        train(tmp_path / "b", stream=broken)
    record = json.loads((tmp_path / "b" / "run.json").read_text())
    assert (record["status"], record["error"]) == ("failed", "DataError: a.jpg is truncated")
    assert train(tmp_path / "b").status == "completed"
    assert "error" not in json.loads((tmp_path / "b" / "run.json").read_text())

    def interrupted(start):  # Ctrl-C ends the processes of the input as well
        yield fake.batch(0)
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.3)
        raise OSError("a worker died")

    assert train(tmp_path / "d", stream=interrupted).exit_code == 130
    with pytest.raises(ConfigError, match="yields 4 images.*train.batch_size=8"):
        train(tmp_path / "c", stream=lambda start: fake.stream(start, size=4))


def test_order_evaluate_save_step_log(tmp_path, monkeypatch):
    events = []
    save, write = Checkpoints.save, Cycle._write
    make = step.make_train_step

    def recorded_make(*args):
        compiled = make(*args)

        def recorded(*args):
            events.append("step")
            return compiled(*args)

        recorded.compiled = made.append(compiled)
        return recorded

    made = []
    monkeypatch.setattr(loop, "make_train_step", recorded_make)
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, k, *a: (events.append(f"save {k}"), save(self, k, *a))[1]
    )
    monkeypatch.setattr(
        Cycle,
        "_write",
        lambda self, k, v: (events.append(f"log {k}") if "loss" in v else None, write(self, k, v)),
    )

    def evaluate(state, k):
        assert int(state.step) == k
        events.append(f"evaluate {k}")
        drawn = {"image": np.zeros((4, 5, 3), np.uint8)}
        return Evaluated({"a": float(k)}, drawn, lambda: events.append(f"files {k}"))

    images = []

    class Recorder:
        def scalars(self, step, values):
            pass

        def images(self, step, values):
            images.append((step, *values))

    train(
        tmp_path,
        evaluate=evaluate,
        writers=[Recorder()],
        train__steps=4,
        train__log_every=1,
        train__eval_every=2,
        train__eval_at_start=True,
        train__save_every=2,
    )
    assert events == [
        *("evaluate 0", "save 0", "step", "step", "log 1", "log 2"),
        *("evaluate 2", "save 2", "step", "step", "log 3", "log 4"),
        *("evaluate 4", "files 4", "save 4", "files 4"),
    ]
    assert images == [(0, "image"), (2, "image"), (4, "image")]
    assert made[0]._cache_size() == 1, "the step was compiled more than once"


class AnySize(fake.FakeDetector):
    """Looks at the mean of the maps, so that images of any shape will do."""

    def predict(self, images, *, train):
        x = self.backbone(images.astype(jnp.float32) / 128.0 - 1.0, train=train)
        x = self.head(x.mean((1, 2)))
        return x[:, :4] * fake.SIDE, x[:, 4:]


def test_every_shape_of_images_is_compiled_once(tmp_path, monkeypatch):
    """Shapes that come late too, without anything travelling to the device unasked."""
    made, make = [], step.make_train_step
    monkeypatch.setattr(loop, "make_train_step", lambda *args: made.append(make(*args)) or made[-1])

    def stream(start):
        for k in itertools.count(start):
            batch = fake.batch(k)
            width = (16, 24, 16, 32)[k % 4] if k > 4 else 16
            yield batch._replace(images=np.resize(batch.images, (8, 16, width, 3)))

    result = train(tmp_path, detector=AnySize(), stream=stream, train__steps=20)
    assert (result.status, result.step) == ("completed", 20)
    assert made[0]._cache_size() == 3


def test_best_checkpoint_stays(tmp_path):
    train(
        tmp_path,
        evaluate=lambda state, k: Evaluated({"ap": 1.0 if k == 2 else 0.1}),
        train__eval_every=2,
        train__steps=10,
    )
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"2", "9", "10"}


def test_best_metric_that_does_not_exist_ends_the_run_at_its_first_evaluation(tmp_path):
    settings = dict(
        train__eval_every=2, train__save_every=50, evaluate=lambda state, k: Evaluated({"ap": k})
    )
    with pytest.raises(ConfigError, match="train.best_metric='app'.*did you mean 'ap'"):
        train(tmp_path, train__best_metric="app", **settings)
    result = train(tmp_path, train__best_metric="ap", **settings)
    assert json.loads((tmp_path / "run.json").read_text())["resumed_at"] == 2
    assert result.status == "completed"
