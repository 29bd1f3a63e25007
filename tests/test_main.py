"""The command line as a user meets it: what can be mended ends in one line and exit code 2."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import absl.logging
import pytest
from absl import flags

from jdet import build, cli
from jdet import config as config_lib
from jdet.types import ConfigError

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
        (["experiments/quikstart.py"], "no experiment file, did you mean 'quickstart.py'"),
        (
            ["experiments/quickstart.py", "--config.eval.pictures=4"],
            "config.eval.pictures is called config.eval.images now",
        ),
        (
            ["experiments/quickstart.py", "--config.augment.name=none", "--config.augment.flip=0"],
            "config.augment.flip does not exist",
        ),
        (
            ["experiments/quickstart.py", "--config.model.backbone.name=vgg17"],
            "backbone 'vgg17' does not exist, did you mean 'vgg16'",
        ),
        (
            ["experiments/quickstart.py", "--config.optimizer.lr=high"],
            "config.optimizer.lr=high: it must be a number",
        ),
        (["experiments/scratchdet_voc.py:root=nowhere"], "python data/get_voc.py --root"),
        (["experiments/quickstart.py", "--config.train.accumulation=3"], "train.accumulation"),
        (["experiments/quickstart.py", "--step=best"], "add --mode=evaluate"),
    ],
)
def test_one_clear_line(config, message, tmp_path):
    done = jdet("main", f"--config={config[0]}", *config[1:], f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def parsed(monkeypatch, *arguments):
    """The config that a command line makes, without a process of its own."""
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    cli._parse(["program", "--config=experiments/quickstart.py", *arguments])
    return values.config


def test_a_class_named_on_the_command_line_brings_its_keys(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = parsed(
        monkeypatch,
        "--config.resize.short=(64, 96)",
        "--config.resize.name=keep_ratio",
        "--config.model.name=retinanet",
        "--config.model.neck.name=fpn",
        "--config.model.neck.channels=32",
        "--config.model.low_quality=anchor",
    )
    assert found.resize.short == (64, 96) and found.resize.long == 1333
    assert set(found.model.neck) == {"name", *build.group("neck", "fpn")}
    assert (found.model.neck.channels, found.model.low_quality) == (32, "anchor")
    assert found.model.backbone.width == 0.25  # of the experiment
    assert found.model.nms_iou == build.group("detector", "retinanet").nms_iou
    found.lock()
    config_lib.validate(found)


def test_a_missing_flag_is_named(monkeypatch, capsys):
    monkeypatch.setattr(flags, "FLAGS", flags.FlagValues())
    with pytest.raises(SystemExit, match="2"):
        cli._parse(["program"])
    said = capsys.readouterr().err
    assert "error: --config=experiments/… is missing; for images of your own experiments/" in said
    assert Path(said.split()[-1].partition(":")[0]).is_file()


def test_warnings_are_told_once(monkeypatch):
    """Also where a library has logged while it was imported."""
    seen = []
    monkeypatch.setattr(absl.logging, "_attempted_to_remove_stderr_stream_handlers", False)
    monkeypatch.setattr(cli.app, "run", lambda *_, **__: seen.extend(logging.root.handlers))
    left = logging.StreamHandler(sys.stderr)
    logging.root.addHandler(left)
    try:
        cli.start(lambda: 0)
    finally:
        logging.root.removeHandler(left)
        logging.root.removeHandler(absl.logging.get_absl_handler())
    assert absl.logging.get_absl_handler() in seen and left not in seen


def test_help_starts_no_backend():
    code = (
        "import sys\nsys.argv = ['jdet.main', '--help']\n"
        "from jdet import cli, main\nmain.define_flags()\n"
        "try:\n    cli.start(main.main)\nfinally:\n    assert 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "--config: Experiment: file.py" in done.stdout and "Error" not in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("module", ["analysis.landscape", "analysis.gradients", "predict"])
def test_mistakes_exit_alike_in_every_command(module, tmp_path):
    arguments = [f"--out={tmp_path / 'out'}"]
    more = {
        "predict": [f"--workdir={tmp_path}", f"--images={tmp_path}"],
        "analysis.gradients": [str(tmp_path), "--batches=1,2"],
    }
    done = jdet(module, *more.get(module, [str(tmp_path)]), *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")


def test_an_experiment_that_fails_names_its_line(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("def get_config():\n    return 1 / 0\n")
    with pytest.raises(ConfigError, match="broken.py, line 2: ZeroDivisionError: division by zero"):
        config_lib.from_file(str(file))
    file.write_text("def get_config():\n    pass\n")
    with pytest.raises(ConfigError, match="get_config returns a NoneType"):
        config_lib.from_file(str(file))
    config = config_lib.from_file(f"{ROOT}/experiments/quickstart.py:steps=7")
    assert config.train.steps == 7


def test_describe_writes_the_same_numbers_for_programs(tmp_path):
    file = tmp_path / "model.json"
    done = jdet("describe", "--config=experiments/scratchdet_voc.py", f"--out={file}")
    assert done.returncode == 0, done.stderr
    assert "24,589,852 parameters, " in done.stdout
    assert json.loads(file.read_text())["parameters"] == 24_589_852
