"""Checkpoints: exact, verified, kept by age and metric, and never lost to damage or a full disk."""

import functools
import itertools
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from jdet import atomic_files
from jdet.parallel import mesh as mesh_lib
from jdet.train import state
from jdet.train.checkpoints import checkpoint, manifest
from jdet.train.checkpoints.checkpoint import (
    CheckpointError,
    Checkpoints,
    load_for_inference,
    parse_step,
)
from jdet.types import ConfigError
from tests.harness import child_environment
from tests.train import fake
from tests.train.test_step import build


@functools.cache
def trained():
    """States after 0, 1, 2 and 3 steps of a small model with everything in its state."""
    config = fake.config(train__ema=0.9)
    mesh, now, step = build(config, fake.FakeDetector("batch"))
    states = [jax.device_get(now)]
    for batch in itertools.islice(fake.stream(0), 3):
        now, _ = step(now, mesh_lib.to_global(batch, mesh))
        states.append(jax.device_get(now))
    return states


def abstract(devices=1, detector=None, **overrides):
    config = fake.config(train__ema=0.9, parallel__devices=devices, **overrides)
    mesh, begin, _ = build(config, detector or fake.FakeDetector("batch"))
    sharded = mesh_lib.replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharded), begin)


def write(directory, steps=(1, 2), metrics=()):
    with Checkpoints(directory, keep=3) as checkpoints:
        for step in steps:
            checkpoints.save(step, trained()[step], dict(metrics).get(step))


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


@pytest.mark.parametrize("devices", [1, 2])
def test_round_trip_is_exact_on_any_devices(tmp_path, devices):
    write(tmp_path, metrics={2: {"voc07/mAP": 0.5, "coco/AP": float("nan")}}.items())
    with Checkpoints(tmp_path) as checkpoints:
        restored, metrics = checkpoints.restore(abstract(devices))
    assert_equal(restored, trained()[2])
    assert metrics == {"voc07/mAP": 0.5}
    assert all(len(x.sharding.device_set) == devices for x in jax.tree.leaves(restored))


def test_saved_state_may_be_donated_at_once(tmp_path):
    config = fake.config()
    mesh, now, step = build(config, fake.FakeDetector("batch"))
    expected = []
    with Checkpoints(tmp_path, keep=9) as checkpoints:
        for k, batch in enumerate(itertools.islice(fake.stream(0), 4)):
            expected.append(jax.tree.map(lambda x: np.array(x), jax.device_get(now.params)))
            checkpoints.save(k, now)
            now, _ = step(now, mesh_lib.to_global(batch, mesh))
    for k, params in enumerate(expected):
        assert_equal(load_for_inference(_workdir(tmp_path), k).params, params)


def _workdir(directory):
    """A workdir whose checkpoints are ``directory``."""
    workdir = directory.parent / (directory.name + "-workdir")
    workdir.mkdir(exist_ok=True)
    if not (workdir / checkpoint.FOLDER).exists():
        (workdir / checkpoint.FOLDER).symlink_to(directory)
    return workdir


def test_nothing_saved_is_none(tmp_path):
    with Checkpoints(tmp_path / "new") as checkpoints:
        assert checkpoints.restore(abstract()) is None
    with pytest.raises(CheckpointError, match="no checkpoint in .*--workdir"):
        load_for_inference(tmp_path)


def test_keeps_the_newest_and_the_best(tmp_path):
    scores = [0.1, 0.9, None, 0.2, 0.3, None]
    with Checkpoints(tmp_path, keep=2, best_metric="b") as checkpoints:
        for step, score in enumerate(scores):
            metrics = None if score is None else {"a": -score, "b": score}
            checkpoints.save(step, trained()[0], metrics)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "4", "5"]
    workdir = _workdir(tmp_path)
    assert load_for_inference(workdir, "best", "b").step == 1
    assert load_for_inference(workdir, "best").step == 4  # "a", the first
    assert load_for_inference(workdir).step == 5
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 3; it has \[1, 4, 5\]"):
        load_for_inference(workdir, 3)


def test_metrics_of_a_later_evaluation(tmp_path):
    """They decide which is the best, and the folder still agrees with its manifest."""
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, trained()[1], {"a": 0.5})
        checkpoints.save(2, trained()[2])
        checkpoints.wait()
        assert checkpoints.steps() == [1, 2]
        checkpoints.add_metrics(2, {"a": 0.7, "b": float("nan")})
        assert checkpoints.steps() == [2]
        restored, metrics = checkpoints.restore(abstract())
        assert_equal(restored, trained()[2])
        assert metrics == {"a": 0.7}
        with pytest.raises(CheckpointError, match="about.json is missing"):
            checkpoints.add_metrics(7, {"a": 0.7})


def test_older_ones_are_removed_when_the_new_one_would_survive_a_power_cut(tmp_path, monkeypatch):
    synced, remove = set(), shutil.rmtree

    def removed(path, **kwargs):
        if path.name == "1.removed":
            new = tmp_path / "2"
            missing = {p for p in (*new.rglob("*"), new, tmp_path) if p.stat().st_ino not in synced}
            assert not missing
            synced.add("checked")
        remove(path, **kwargs)

    monkeypatch.setattr(
        atomic_files.os, "fsync", lambda handle: synced.add(os.fstat(handle).st_ino)
    )
    monkeypatch.setattr(checkpoint.shutil, "rmtree", removed)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, trained()[step])
    assert "checked" in synced


@pytest.mark.parametrize(
    "written, meant",
    [(7, 7), ("7", 7), ("best", "best"), ("latest", None), ("", None), (None, None)],
)
def test_what_people_write_for_a_checkpoint(written, meant):
    assert parse_step(written) == meant


@pytest.mark.parametrize("written", ["last", "-1", "1e3", 1.5])
def test_what_no_checkpoint_can_be(tmp_path, written):
    with pytest.raises(ConfigError, match="give a number, 'best' or 'latest'"):
        load_for_inference(tmp_path, written)


def test_inference_reads_plain_arrays(tmp_path):
    write(tmp_path)
    weights = load_for_inference(_workdir(tmp_path))
    assert weights.step == 2
    assert all(type(x) is np.ndarray for x in jax.tree.leaves(weights[1:]))
    assert_equal(weights.params, trained()[2].params)
    average = state.eval_variables(weights, True)
    assert_equal(average["params"], trained()[2].ema["params"])
    assert_equal(average["batch_stats"], trained()[2].ema["stats"])
    with Checkpoints(tmp_path / "plain") as checkpoints:
        checkpoints.save(0, trained()[0]._replace(ema=None, stats={}))
    weights = load_for_inference(_workdir(tmp_path / "plain"))
    assert weights.ema is None and weights.stats == {}


def test_never_overwrites(tmp_path):
    write(tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match="never overwritten"):
            checkpoints.save(2, trained()[3])
        assert_equal(checkpoints.restore(abstract())[0], trained()[2])


def test_another_model_lists_the_paths(tmp_path):
    write(tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ConfigError) as error:
            checkpoints.restore(abstract(detector=fake.FakeDetector("none")))
    text = str(error.value)
    assert "params/backbone/conv/bias: absent in the checkpoint, float32[4] in the model" in text
    assert "params/backbone/norm/scale: float32[4] in the checkpoint, absent" in text
    assert "more" in text and text.count("\n") < 15


def _remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize(
    "part, damage",
    [
        ("about.json", _truncate),
        ("about.json", _remove),
        ("_CHECKPOINT_METADATA", _remove),
        ("model/_METADATA", _truncate),
        ("model/manifest.ocdbt", _remove),
        ("model/d/*", _truncate),
        ("model/ocdbt.process_0/d/*", _truncate),
        ("model/ocdbt.process_0/d/*", _flip),
        ("optimizer/ocdbt.process_0/d/*", _remove),
        ("optimizer", _remove),
    ],
)
def test_damage_falls_back_to_the_one_before(tmp_path, part, damage):
    write(tmp_path)
    for path in (tmp_path / "2").glob(part):
        damage(path)
    said = []
    with Checkpoints(tmp_path, notify=said.append) as checkpoints:
        restored, _ = checkpoints.restore(abstract())
        assert_equal(restored, trained()[1])
        assert len(said) == 1 and "damaged" in said[0] and str(tmp_path / "2") in said[0]
        checkpoints.save(2, trained()[2])  # its step is free again
    assert (tmp_path / "2.damaged").is_dir()
    assert_equal(load_for_inference(_workdir(tmp_path)).params, trained()[2].params)


def test_inference_passes_over_damage_and_says_so(tmp_path):
    write(tmp_path)
    for path in (tmp_path / "2" / "model" / "ocdbt.process_0" / "d").iterdir():
        _flip(path)
    said = []
    assert load_for_inference(_workdir(tmp_path), notify=said.append).step == 1
    assert len(said) == 1 and (tmp_path / "2").exists()
    with pytest.raises(CheckpointError, match="damaged"):
        load_for_inference(_workdir(tmp_path), 2)


def test_nothing_readable_is_an_error(tmp_path):
    write(tmp_path)
    for step in ("1", "2"):
        (tmp_path / step / "_CHECKPOINT_METADATA").unlink()
    for _ in range(2):  # the next start must not take the run for a new one either
        with Checkpoints(tmp_path, notify=lambda _: None) as checkpoints:
            with pytest.raises(CheckpointError, match=r"none of .*\[1, 2\].*can be read"):
                checkpoints.restore(abstract())


def test_what_cannot_be_opened_is_no_checkpoint(tmp_path, monkeypatch):
    """Under such a name orbax finds nothing to gather, and files of the right sizes hold no array."""
    folder = tmp_path / "r[1]"
    with pytest.raises(
        CheckpointError, match="saving step 1 .* failed: of the 14 arrays of model, 0"
    ):
        write(folder, steps=(1,))
    assert Checkpoints(folder).steps() == []
    monkeypatch.setattr(
        manifest, "_find_arrays", lambda *_: None
    )  # as an earlier version sealed it
    write(folder, steps=(1,))
    monkeypatch.undo()
    with Checkpoints(folder, notify=lambda _: None) as checkpoints:
        with pytest.raises(CheckpointError, match="none of the checkpoints"):
            checkpoints.restore(abstract())


def test_no_room_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    write(tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=5000)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match=r"MiB to write(.|\n)*\[1, 2\] are intact"):
            checkpoints.save(3, trained()[3])
        assert checkpoints.steps() == [1, 2]


SCRIPT = """
import resource, sys, time
import jax.numpy as jnp
from jdet.train.checkpoints.checkpoint import CheckpointError, Checkpoints
from jdet.types import TrainState

with Checkpoints(sys.argv[1]) as checkpoints:
    weights = {"kernel": jnp.sin(jnp.arange(5000.0))}
    checkpoints.save(1, TrainState(jnp.int32(1), weights, {}, {}, None))
    checkpoints.wait()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        checkpoints.save(2, TrainState(jnp.int32(2), weights, {}, {}, None))
        while True:  # as the loop does at every step
            checkpoints.check()
            time.sleep(0.01)
    except CheckpointError as error:
        print("RAISED", error, "END", flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    checkpoints.save(2, TrainState(jnp.int32(2), weights, {}, {}, None))
"""


def test_full_disk_is_a_clear_error_and_nothing_is_lost(tmp_path):
    """A limit on the size of files stands for the end of the disk."""
    environment = child_environment(JAX_PLATFORMS="cpu")
    directory = tmp_path / "run" / checkpoint.FOLDER
    command = [sys.executable, "-c", SCRIPT, str(directory)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = done.stdout.partition("RAISED")[2].partition("END")[0]
    assert f"saving step 2 to {directory} failed" in said and "too large" in said, done.stderr
    assert "Make room" in said and "[1] are intact" in said
    for step in (1, 2):  # what was there before, and the second try
        assert load_for_inference(tmp_path / "run", step).params["kernel"].shape == (5000,)


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    write(tmp_path)
    for name in ("3.writing.orbax-checkpoint-tmp", "4.writing", "0.removed"):
        shutil.copytree(tmp_path / "1", tmp_path / name)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2"]
