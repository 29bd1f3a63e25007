"""Where ONNX Runtime comes from."""

import subprocess
import sys
import types

import numpy as np
import pytest

from jdet.export.onnx import environment
from jdet.types import ConfigError


def test_an_interpreter_without_it_is_refused():
    with pytest.raises(ConfigError, match="--onnx_python=/nowhere/python cannot import"):
        environment.python("/nowhere/python")


def test_one_is_made_once_and_kept(monkeypatch, tmp_path):
    """With pip's part played by a file that the interpreter is asked for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(environment.venv, "create", lambda folder, **_: folder.mkdir(parents=True))
    ran, said = [], []

    def play(command, **_):
        ran.append(command[1:3])
        there = (environment.cache() / "installed").exists()
        if "pip" in command:
            (environment.cache() / "installed").touch()
            there = True
        return types.SimpleNamespace(returncode=0 if there else 1, stderr="")

    monkeypatch.setattr(environment.subprocess, "run", play)
    first = environment.python("", said.append)
    assert first.startswith(str(tmp_path)) and ["-m", "pip"] in ran and len(said) == 1
    ran.clear()
    assert environment.python("", said.append) == first
    assert ["-m", "pip"] not in ran and len(said) == 1


def test_without_a_network_the_command_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(environment.venv, "create", lambda *_, **__: None)
    failed = types.SimpleNamespace(returncode=1, stderr="x\nERROR: no matching distribution\n")
    monkeypatch.setattr(environment.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ConfigError, match="no matching distribution.*--onnx_python=PATH"):
        environment.python("", lambda _: None)


def test_what_onnx_runtime_says_is_passed_on(monkeypatch, tmp_path):
    """Of a file that it cannot read; the interpreter here has a runtime that only refuses."""
    (tmp_path / "jdet_runtime.py").write_text("def Detector(path): raise ValueError('no model')\n")
    monkeypatch.setattr(environment, "RUNTIME", tmp_path / "jdet_runtime.py")
    with environment.Runner(sys.executable, b"") as runner:
        with pytest.raises(ConfigError, match="cannot run the detector: ValueError: no model"):
            runner(np.zeros((4, 4, 3), np.uint8))
    assert isinstance(runner._process, subprocess.Popen) and runner._process.poll() is not None
