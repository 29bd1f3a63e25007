"""A run's life: exact resume after any kind of stop, refusals, divergence, and its records."""

import itertools
import json
import math
import os
import signal
import threading
import time

import jax
import numpy as np
import pytest

from jdet.train import loop
from jdet.train.checkpoints.checkpoint import CheckpointError, Checkpoints, load_for_inference
from jdet.train.preemption import StopRequest
from jdet.types import ConfigError, Evaluated
from tests.train import fake

TIMING = ("images_per_second", "data_wait")


def train(workdir, detector=None, stream=fake.stream, num_examples=20, evaluate=None, **kwargs):
    options = ("overwrite", "writers", "init_transforms", "policy", "checks")
    options += ("train_images", "until")
    own = {key: kwargs.pop(key) for key in options if key in kwargs}
    return loop.train(
        fake.config(**kwargs),
        workdir,
        detector=detector or fake.FakeDetector("batch"),
        train_stream=stream,
        num_examples=num_examples,
        evaluate=evaluate,
        **own,
    )


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def timeless(workdir):
    return [{k: v for k, v in line.items() if k not in TIMING} for line in lines(workdir)]


def assert_identical(a, b):
    a, b = jax.device_get(a), jax.device_get(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def score(state, k):
    bias = jax.device_get(state.params["head"]["bias"])
    return Evaluated({"score": float(np.abs(bias).sum()), "at": k, "unknown": math.nan})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run the others are compared with: 30 steps."""
    workdir = tmp_path_factory.mktemp("whole")
    settings = dict(train__steps=30, train__save_every=4, train__eval_every=10, train__ema=0.9)
    return train(workdir, evaluate=score, train_images=17, **settings), workdir, settings


def test_a_whole_run(whole, capsys):
    result, workdir, settings = whole
    assert (result.status, result.step, result.exit_code) == ("completed", 30, 0)
    assert result.metrics["at"] == 30 and set(result.metrics) == {"score", "at", "unknown"}
    assert result.images_per_second > 0 and 0 <= result.data_wait <= 1
    record = json.loads((workdir / "run.json").read_text())
    assert record["peak_memory"] > 1e7 and record["versions"]["jax"] == jax.__version__
    assert int(result.state.step) == 30
    kept = {p.name for p in (workdir / "checkpoints").iterdir()}
    assert {"28", "30"} <= kept and len(kept) <= 3
    logged = [line for line in lines(workdir) if "loss" in line]
    assert [line["step"] for line in logged] == [1, *range(2, 31, 2)]
    keys = {"step", "loss", "loss/loc", "loss/cls", "lr", "grad_norm", "epoch"}
    assert set(logged[0]) == keys  # the first step brings the compilation: no speed
    assert set(logged[-1]) == {*keys, *TIMING}
    assert logged[-1]["epoch"] == 30 * 8 / 20
    assert [line["step"] for line in lines(workdir) if "score" in line] == [10, 20, 30]
    record = json.loads((workdir / "run.json").read_text())
    assert record["status"] == "completed" and record["step"] == 30
    assert record["metrics"] == {**result.metrics, "unknown": None}
    assert record["num_examples"] == 20 and record["train_images"] == 17
    assert json.loads((workdir / "config.json").read_text())["train"]["steps"] == 30
    assert list(workdir.glob("events.out.tfevents.*"))

    again = train(workdir, evaluate=score, **settings)
    assert "complete" in capsys.readouterr().out
    assert again.status == "completed"
    np.testing.assert_equal(again.metrics, result.metrics)  # what is not a number is so again
    assert_identical(again.state, result.state)


def test_it_can_be_told_where_to_stop(whole, tmp_path):
    result, workdir, settings = whole
    stopped = train(tmp_path, evaluate=score, until=10, **settings)
    assert (stopped.status, stopped.step, stopped.exit_code) == ("interrupted", 10, 0)
    assert not stopped.metrics  # that step is saved, and evaluated when the run goes on
    assert_identical(train(tmp_path, evaluate=score, **settings).state, result.state)
    assert timeless(tmp_path) == timeless(workdir)
    (stretch,) = json.loads((tmp_path / "run.json").read_text())["stretches"]
    assert (stretch["first"], stretch["machine"]["micro_batch"]) == (0, 8)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_save_and_tell_the_shell(whole, tmp_path, number, code):
    result, workdir, settings = whole

    def stream(start):
        for k, batch in enumerate(fake.stream(start), start):
            if k == 13:
                signal.raise_signal(number)
            yield batch

    before = signal.getsignal(number)
    stopped = train(tmp_path, evaluate=score, stream=stream, **settings)
    assert (stopped.status, stopped.exit_code) == ("interrupted", code)
    assert 8 <= stopped.step <= 14 and int(stopped.state.step) == stopped.step
    assert (tmp_path / "checkpoints" / str(stopped.step)).is_dir()
    assert signal.getsignal(number) is before
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "interrupted"
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # as a power cut would leave it
    resumed = train(tmp_path, evaluate=score, **settings)
    assert_identical(resumed.state, result.state)
    assert timeless(tmp_path) == timeless(workdir)


def test_stopped_at_an_evaluation_that_makes_the_best(tmp_path, monkeypatch):
    """The evaluation after resuming belongs to a checkpoint that is already there."""
    settings = dict(train__steps=12, train__save_every=1, train__eval_every=4)

    def evaluate(state, k):
        return Evaluated({"ap": 1.0 if k == 4 else 0.5})

    questions = itertools.count()

    def stop_at_four(self):
        if next(questions) == 4:
            signal.raise_signal(signal.SIGTERM)
        return stopping(self)

    def stored(workdir):
        folders = (workdir / "checkpoints").iterdir()
        return {p.name: json.loads((p / "about.json").read_text())["metrics"] for p in folders}

    train(tmp_path / "whole", evaluate=evaluate, **settings)
    cut, stopping = tmp_path / "cut", StopRequest.reached
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "reached", stop_at_four)
        assert train(cut, evaluate=evaluate, **settings).step == 4
    assert stored(cut)["4"] == {}
    train(cut, evaluate=evaluate, **settings)
    assert (
        stored(cut) == stored(tmp_path / "whole") == {"4": {"ap": 1.0}, "11": {}, "12": {"ap": 0.5}}
    )
    assert load_for_inference(cut, "best").step == 4
    assert timeless(cut) == timeless(tmp_path / "whole")


def test_second_interrupt_aborts(tmp_path, monkeypatch):
    judging, heard = threading.Event(), threading.Event()
    handle = StopRequest._handle

    def tell(self, *args):
        heard.set()
        handle(self, *args)

    def stream(start):
        for k, batch in enumerate(fake.stream(start), start):
            if k == 4:
                judging.wait(60)
                signal.raise_signal(signal.SIGINT)
                heard.wait(60)  # two that come together count as one
                signal.raise_signal(signal.SIGINT)
            yield batch

    def slow(state, k):
        judging.set()
        for _ in range(600):  # handlers run between two lines of the main thread
            time.sleep(0.1)
        return Evaluated({})

    monkeypatch.setattr(StopRequest, "_handle", tell)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stream=stream, evaluate=slow, train__steps=50, train__eval_every=3)


def test_accumulated_run_resumes_exactly(tmp_path):
    settings = dict(train__accumulation=2, train__save_every=2, optimizer__clip_norm=1.0)
    full = train(tmp_path / "full", **settings)

    def stream(start):
        for k, batch in enumerate(fake.stream(start), start):
            if k == 3:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    assert train(tmp_path / "cut", stream=stream, **settings).step < 6
    assert_identical(train(tmp_path / "cut", **settings).state, full.state)


def test_divergence_stops_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path, capsys):
    """Image 35 is in batch 4: the fifth step fails."""
    detector = fake.FakeDetector("batch", bad_index=35)
    settings = dict(train__steps=20, train__save_every=3)
    result = train(tmp_path, detector, **settings)
    assert (result.status, result.step, result.exit_code) == ("diverged", 4, 1)
    assert int(result.state.step) == 4
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(result.state.params)))
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["3"]
    event = lines(tmp_path)[-1]
    assert (event["event"], event["step"], event["loss"]) == ("diverged", 5, None)
    assert event["grad_norm/head"] is None and event["loss/cls"] > 0
    said = capsys.readouterr().out
    assert "not finite at step 5" in said and "last good checkpoint is step 3" in said
    assert "grad_norm/backbone" in said
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "diverged"

    again = train(tmp_path, detector, **settings)  # goes on from step 3, and fails the same way
    assert (again.status, again.step) == ("diverged", 4)
    assert_identical(again.state, result.state)
    assert sum("event" in line for line in lines(tmp_path)) == 1


def test_another_config_is_refused_and_free_keys_are_not(tmp_path, capsys):
    train(tmp_path, train__save_every=2)
    with pytest.raises(ConfigError) as error:
        train(tmp_path, train__save_every=2, optimizer__lr=0.5, seed=7)
    text = str(error.value)
    assert "optimizer.lr: 0.02 → 0.5" in text and "seed: 0 → 7" in text and "--overwrite" in text
    assert "save_every" not in text
    with pytest.raises(ConfigError, match="images of an epoch: 20 → 21"):
        train(tmp_path, num_examples=21, train__save_every=2)
    capsys.readouterr()
    assert train(tmp_path, train__save_every=3, data__workers=2).status == "completed"
    said = capsys.readouterr().out
    assert "train.save_every: 2 → 3" in said and "data.workers: 0 → 2" in said


@pytest.mark.parametrize(
    "setting, named",
    [
        (dict(model__norm="batch"), "model.norm='batch'"),
        (dict(model__head_norm="batch"), "model.head_norm='batch'"),
        (dict(train__loss_norm="per_device"), "train.loss_norm='per_device'"),
        (dict(model__norm="sync_batch", model__head_norm="group"), None),
    ],
)
def test_other_images_per_device_are_refused_where_they_matter(tmp_path, setting, named):
    """Eight images per step, on two devices and then on one."""

    def stream(start):
        for k, batch in enumerate(fake.stream(start), start):
            if k == 3:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    own = dict(setting, detector=fake.FakeDetector("none"))
    assert train(tmp_path, stream=stream, parallel__devices=2, **own).status == "interrupted"
    if named is not None:
        with pytest.raises(ConfigError, match=r"on 2 device.* 4 images.* on 1 it .* 8") as error:
            train(tmp_path, parallel__devices=1, **own)
        assert named in str(error.value) and "parallel.devices=2" in str(error.value)
    devices = 2 if named else 1
    assert train(tmp_path, parallel__devices=devices, **own).status == "completed"
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["devices"], record["micro_batch"]) == (devices, 8 // devices)
    # Nothing is left to train, and nothing to refuse.
    assert train(tmp_path, parallel__devices=4, **own).status == "completed"


def test_overwrite_discards_the_run_and_nothing_else(tmp_path):
    train(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "report.json").write_text("{}")
    result = train(tmp_path, overwrite=True, seed=3, train__steps=2)
    assert result.step == 2 and (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "report.json").exists()
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"1", "2"}
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_folder_that_is_not_a_run_is_refused_even_with_overwrite(tmp_path):
    (tmp_path / "thesis.tex").write_text("do not lose")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="something else than a run.*thesis.tex"):
            train(tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").exists()
    with pytest.raises(ConfigError, match="is a file"):
        train(tmp_path / "thesis.tex")


def test_two_processes_in_one_workdir_are_refused(tmp_path):
    inner = []

    def stream(start):
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()} on") as error:
            train(tmp_path)
        inner.append(error)
        yield from fake.stream(start)

    assert train(tmp_path, stream=stream).status == "completed"
    assert inner
    assert train(tmp_path).status == "completed"  # the folder was let go


def test_damaged_checkpoints(tmp_path, capsys):
    full = train(tmp_path / "full", train__save_every=2)
    workdir = tmp_path / "cut"
    train(workdir, train__save_every=2)
    for path in (workdir / "checkpoints" / "6" / "optimizer").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    capsys.readouterr()
    resumed = train(workdir, train__save_every=2)
    assert "damaged" in capsys.readouterr().out
    assert_identical(resumed.state, full.state)
    assert timeless(workdir) == timeless(tmp_path / "full")
    for path in (workdir / "checkpoints").rglob("about.json"):
        path.unlink()
    with pytest.raises(CheckpointError, match="none of the checkpoints"):
        train(workdir, train__save_every=2)


def test_failed_save_ends_the_run_at_the_next_step(tmp_path, monkeypatch):
    def full(self, path, written, about):
        if path.name == "4":
            raise OSError(28, "No space left on device")
        return commit(self, path, written, about)

    commit = Checkpoints._commit
    monkeypatch.setattr(Checkpoints, "_commit", full)

    def slow(start):
        for batch in fake.stream(start):
            time.sleep(0.05)
            yield batch

    with pytest.raises(
        CheckpointError, match=r"No space left(.|\n)*Make room(.|\n)*\[2\] are intact"
    ):
        train(tmp_path, stream=slow, train__steps=200, train__save_every=2)
    assert lines(tmp_path)[-1]["step"] < 20
    monkeypatch.undo()
    assert train(tmp_path, train__steps=200, train__save_every=50).exit_code == 0
