"""A real SSD from the command line, killed, stopped and gone on with: the weights are those of one go."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jdet.train.checkpoints import checkpoint
from tests.conftest import CACHE

ROOT = Path(__file__).resolve().parents[1]
STEPS = 24

EXPERIMENT = f"""
from jdet import build
from jdet.config import get_defaults


def get_config(arg=""):
    c = get_defaults()
    c.input_size = 64
    shapes = dict(size=64, num_classes=2, min_scale=0.3, max_objects=2)
    c.data.train = build.group("source", "shapes", count=40, split="train", **shapes)
    c.data.eval = build.group("source", "shapes", count=8, split="test", **shapes)
    c.data.max_boxes = 4
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "vgg16", width=0.0625),
        neck=build.group("neck", "ssd_extras", width=0.125),
        first_ratio=0.25,
        min_ratio=0.4,
    )
    c.train.batch_size = 4
    c.train.steps = {STEPS}
    c.train.ema = 0.9
    c.train.log_every = 1
    c.train.save_every = 4
    c.optimizer.reference_batch = 4
    c.eval.batch_size = 8
    c.eval.images = 0
    return c
"""


def start(experiment, workdir):
    environment = os.environ | {
        "JDET_ENVIRONMENT": "off",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": CACHE,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "jdet.main", f"--config={experiment}", f"--workdir={workdir}"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(experiment, workdir):
    output, _ = (process := start(experiment, workdir)).communicate(timeout=900)
    assert process.returncode == 0, output
    return output


def logged(workdir):
    """The numbers in metrics.jsonl, but for those of the clock."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    clock = ("images_per_second", "data_wait")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def saved(workdir, step=STEPS):
    """Everything in the last checkpoint, and the metrics stored with it."""
    path = workdir / checkpoint.FOLDER / str(step)
    parts, about = checkpoint._load(path, {"model": None, "optimizer": None})
    return parts, about["metrics"]


def signalled(experiment, workdir, number, when):
    """Starts a run and signals it once ``when()`` is true; returns what it printed."""
    process = start(experiment, workdir)
    try:
        while process.poll() is None:
            if when():
                process.send_signal(number)
                break
            time.sleep(0.005)
        output, _ = process.communicate(timeout=900)
    finally:
        process.kill()
    assert process.returncode == (0 if number == signal.SIGTERM else -number), output
    return output


def interrupt(experiment, workdir, number, target, phase=""):
    """Signals a run once it has logged a step; returns what it printed and its newest checkpoint.

    Args:
        experiment: its file.
        workdir: of the run, or of all its phases.
        number: of the signal.
        target: the step.
        phase: in which; "" without phases.
    """
    log = workdir / phase / "metrics.jsonl"
    checkpoints = workdir / phase / checkpoint.FOLDER
    old = log.stat().st_ino if log.exists() else None  # replaced by the run when it begins

    def reached():
        begun = log.exists() and log.stat().st_ino != old
        saved_one = any(p.name.isdecimal() for p in checkpoints.glob("*"))
        return begun and saved_one and f'"step": {target},' in log.read_text()

    output = signalled(experiment, workdir, number, reached)
    return output, max(int(p.name) for p in checkpoints.iterdir() if p.name.isdecimal())


def test_killed_then_stopped_a_run_ends_with_the_same_weights(tmp_path):
    experiment, whole, cut = (tmp_path / name for name in ("tiny.py", "whole", "cut"))
    experiment.write_text(EXPERIMENT)
    finish(experiment, whole)

    steps = random.Random(0)
    _, first = interrupt(experiment, cut, signal.SIGKILL, steps.randint(6, 10))
    assert 4 <= first < STEPS
    output, second = interrupt(experiment, cut, signal.SIGTERM, first + steps.randint(2, 6))
    assert f"resuming from step {first}" in output and f"interrupted at step {second}" in output
    assert first < second < STEPS
    assert f"resuming from step {second}" in finish(experiment, cut)

    (parts, metrics), (expected, expected_metrics) = saved(cut), saved(whole)
    assert set(parts["model"]) == {"params", "stats", "ema"} and parts["model"]["stats"]
    assert set(parts["model"]["ema"]) == {"params", "stats"}
    jax.tree.map(np.testing.assert_array_equal, parts, expected)
    assert metrics == expected_metrics and metrics
    assert logged(cut) == logged(whole)


PHASED = EXPERIMENT.replace(
    "    return c\n",
    """    c.phases = ("first", "second")
    c.phase.first = dict(
        train=dict(batch_size=8, steps=12), model=dict(norm="sync_batch"), optimizer=dict(lr=0.02)
    )
    c.phase.second = dict(train=dict(steps=12), model=dict(norm="fixed"))
    return c
""",
)


@pytest.mark.thorough
def test_killed_in_each_phase_and_between_them_it_ends_with_the_same_weights(tmp_path):
    """Three kills of one run: in the first phase, after its end, in the second."""
    experiment, whole, cut = (tmp_path / name for name in ("tiny.py", "whole", "cut"))
    experiment.write_text(PHASED)
    finish(experiment, whole)

    _, step = interrupt(experiment, cut, signal.SIGKILL, 7, "first")
    assert 4 <= step < 12
    record = cut / "first" / "run.json"
    output = signalled(experiment, cut, signal.SIGKILL, lambda: '"completed"' in record.read_text())
    assert f"resuming from step {step}" in output
    assert not (cut / "second" / checkpoint.FOLDER).exists()
    output, step = interrupt(experiment, cut, signal.SIGKILL, 6, "second")
    assert "first (finished)" in output and 4 <= step < 12
    assert f"resuming from step {step}" in finish(experiment, cut)

    for phase in ("first", "second"):
        (parts, metrics), (expected, expected_metrics) = (
            saved(folder / phase, 12) for folder in (cut, whole)
        )
        jax.tree.map(np.testing.assert_array_equal, parts, expected)
        assert metrics == expected_metrics and metrics
        assert logged(cut / phase) == logged(whole / phase)
