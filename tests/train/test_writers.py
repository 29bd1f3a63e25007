"""Records on disk: complete lines only, nothing twice; and what a terminal shows."""

import io
import json
import logging

import numpy as np

from jdet.train import writers
from jdet.train.progress import Progress, Stopwatch


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_json_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = writers.JsonlWriter(path)
    writer.scalars(
        1, {"loss": np.float32(0.5), "bad": float("nan"), "event": "x", "n": np.int64(3)}
    )
    assert read(path) == [{"step": 1, "loss": 0.5, "bad": None, "event": "x", "n": 3}]
    writer.images(1, {"a": np.zeros((2, 2, 3), np.uint8)})
    writer.close()
    assert len(read(path)) == 1


def test_resuming_drops_what_comes_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 5}\nnonsense\n{"step": 9}\n{"step": 2, "los')
    writer = writers.JsonlWriter(path, keep_until=5)
    writer.scalars(6, {"loss": 1.0})
    writer.close()
    assert read(path) == [{"step": 1}, {"step": 5}, {"step": 6, "loss": 1.0}]
    writers.JsonlWriter(path).close()
    assert read(path) == []


def test_tensorboard_gets_numbers_and_images(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    writer = writers.TensorBoardWriter(tmp_path, keep_until=3)
    writer.scalars(4, {"loss/cls": 1.5, "event": "x", "nan": float("nan"), "AP/red cell": 0.5})
    writer.images(4, {"detections/1": np.full((6, 8, 3), 200, np.uint8)})
    writer.close()
    (events,) = tmp_path.glob("events.out.tfevents.*")
    data = events.read_bytes()
    assert b"loss/cls" in data and b"detections/1" in data and b"nan" not in data
    assert b"AP/red_cell" in data and not caplog.records  # names of classes may have spaces


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("jdet.train.progress.time.perf_counter", lambda: self.now)


def test_stopwatch_leaves_out_what_is_not_training(monkeypatch):
    clock = Clock(monkeypatch)
    watch = Stopwatch()

    def train(steps, wait, work):
        for _ in range(steps):
            with watch.waiting():
                clock.now += wait
            clock.now += work
            watch.step()

    train(1, 5.0, 50.0)  # compilation: the clock stands still
    assert watch.rates(8) == (0.0, 0.0) and watch.seconds_per_step() == 0
    watch.resume()
    train(4, 0.5, 1.5)
    assert watch.rates(8) == (4.0, 0.25)
    with watch.paused():
        clock.now += 1000  # evaluation
    assert watch.lap(8) == (4.0, 0.25)
    train(2, 0.0, 1.0)
    assert watch.lap(8) == (8.0, 0.0)
    assert watch.rates(8) == (4.8, 0.2)


def test_plain_lines_without_a_terminal(monkeypatch):
    clock = Clock(monkeypatch)
    watch, out = Stopwatch(), io.StringIO()
    watch.resume()
    clock.now += 2
    watch.step()
    progress = Progress(100, file=out)
    progress.advance(10, 1.25, watch, 8)
    progress.log(10, {"loss": 1.25, "loss/cls": 1.0, "lr": 0.05}, 4.0, 0.25, watch)
    progress.close()
    assert out.getvalue() == (
        "step 10/100  loss 1.25 (cls 1)  lr 0.05  4.0 img/s  data wait 25%  ETA 0:03:00\n"
    )
    Progress(100, enabled=False, file=out).say("silent")
    assert "silent" not in out.getvalue()


def test_one_live_line_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    watch, out = Stopwatch(), Terminal()
    progress = Progress(100, file=out)
    watch.resume()
    watch.step()
    progress.advance(10, 1.25, watch, 8)
    progress.log(10, {"loss": 1.25, "lr": 0.05}, 4.0, 0.25, watch)  # the live line says it
    progress.say("[a message]")
    progress.close()
    assert "step 10/100" in out.getvalue() and "loss 1.25" in out.getvalue()
    assert "[a message]" in out.getvalue() and "lr 0.05" not in out.getvalue()
