"""The command line as a user meets it: what can be mended ends in one line and exit code 2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def jdet(module, *arguments):
    environment = os.environ | {"JDET_ENVIRONMENT": "off", "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-m", f"jdet.{module}", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    "config, message",
    [
        (
            ["experiments/quickstart.py:stesp=3"],
            "argument 'stesp' does not exist, did you mean 'steps'",
        ),
        (
            ["experiments/quickstart.py", "--config.train.stepps=3"],
            "config.train.stepps does not exist, did you mean config.train.steps?",
        ),
        (
            ["experiments/quickstart.py", "--config.data.input_size=96"],
            "config.data.input_size does not exist, did you mean config.input_size?",
        ),
        (["experiments/nowhere.py"], "experiments/nowhere.py"),
        (
            ["experiments/quickstart.py", "--config.optimizer.lr=high"],
            "config.optimizer.lr=high: could not convert string to float: 'high'",
        ),
        (["experiments/scratchdet_voc.py:root=nowhere"], "python data/get_voc.py --root"),
        (["experiments/quickstart.py", "--config.train.accumulation=3"], "train.accumulation"),
    ],
)
def test_one_clear_line(config, message, tmp_path):
    done = jdet("main", f"--config={config[0]}", *config[1:], f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_describe_writes_the_same_numbers_for_programs(tmp_path):
    file = tmp_path / "model.json"
    done = jdet("describe", "--config=experiments/scratchdet_voc.py", f"--json={file}")
    assert done.returncode == 0, done.stderr
    assert "24,589,852 trainable parameters" in done.stdout
    assert json.loads(file.read_text())["parameters"] == 24_589_852
