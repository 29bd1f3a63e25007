"""Trackers are told numbers, images and config, know a run again, and never end it; no network."""

import json
import os
import sys
import types

import numpy as np
import pytest

from jdet.config import get_defaults
from jdet.parallel import broadcast
from jdet.train import loggers, loop
from jdet.train.folders import LOGGERS, PHASES, discard
from jdet.types import ConfigError, Evaluated
from tests.train import fake

IMAGE = np.full((4, 6, 3), 7, np.uint8)


def settings(*names, project=""):
    config = get_defaults()
    config.train.loggers, config.train.project = names, project
    return config


class Recorder:
    """Stands for any object of a library: notes every call by its name."""

    def __init__(self, calls, **attributes):
        self._calls = calls
        self.__dict__.update(attributes)

    def __getattr__(self, name):
        return lambda *args, **kwargs: self._calls.append((name, args, kwargs))


@pytest.fixture
def fake_wandb(monkeypatch):
    calls = []

    def init(**given):
        calls.append(("init", (), given))
        return Recorder(calls, id=given["id"] or f"made{len(calls)}")

    library = types.SimpleNamespace(init=init, Image=lambda array: ("image", array.shape))
    monkeypatch.setitem(sys.modules, "wandb", library)
    return calls


def test_wandb_gets_everything_and_goes_on_under_its_id(tmp_path, fake_wandb):
    config = settings("wandb", project="birds")
    for step in (1, 5):
        with loggers.loggers_in(tmp_path, config) as (writer,):
            writer.scalars(step, {"loss": np.float32(0.5), "bad": float("nan"), "event": "x"})
            writer.images(step, {"detections/000_a:b": IMAGE})
    (_, _, first), (_, _, second) = [call for call in fake_wandb if call[0] == "init"]
    assert (first["project"], first["name"], first["id"]) == ("birds", tmp_path.name, None)
    assert second["id"] == "made1" and first["resume"] == second["resume"] == "allow"
    assert first["config"]["train"]["batch_size"] == config.train.batch_size
    logged = [args[0] for name, args, _ in fake_wandb if name == "log"]
    drawn = {"step": 1, "detections/000_a_b": ("image", (4, 6, 3))}
    assert logged[:2] == [{"step": 1, "loss": 0.5}, drawn] and logged[2]["step"] == 5
    ends = [given for name, _, given in fake_wandb if name == "finish"]
    assert ends == [{"exit_code": 0}] * 2
    assert json.loads((tmp_path / LOGGERS).read_text()) == {"wandb": "made1"}
    discard(tmp_path)
    assert not (tmp_path / LOGGERS).exists()


def test_projects_come_from_the_environment_and_phases_have_both_names(
    tmp_path, fake_wandb, monkeypatch
):
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    (tmp_path / PHASES).write_text("{}")
    (tmp_path / "warm").mkdir()
    with loggers.loggers_in(tmp_path / "warm", settings("wandb")):
        pass
    assert fake_wandb[0][2]["project"] == "ours"
    assert fake_wandb[0][2]["name"] == f"{tmp_path.name}-warm"


def test_a_training_tells_its_trackers(tmp_path, fake_wandb):
    run = loop.train(
        fake.config(train__steps=2, train__loggers=("wandb",)),
        tmp_path,
        detector=fake.FakeDetector("batch"),
        train_stream=fake.stream,
        num_examples=20,
        evaluate=lambda state, step: Evaluated({"score": 0.5}, {"drawn": IMAGE}),
    )
    logged = [args[0] for name, args, _ in fake_wandb if name == "log"]
    assert run.status == "completed" and {"step": 2, "score": 0.5} in logged
    assert any("loss/cls" in one for one in logged) and any("drawn" in one for one in logged)
    assert fake_wandb[-1] == ("finish", (), {"exit_code": 0})


class MlflowError(Exception):
    pass


class Client:
    """Of a server that holds runs; ids not in ``runs`` are refused."""

    def __init__(self, runs, calls):
        self.runs, self._calls = runs, calls

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return f"experiment {name}"

    def create_run(self, experiment, run_name):
        id = f"run{len(self.runs)}"
        self.runs[id] = experiment, run_name
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=id))

    def get_run(self, id):
        if id not in self.runs:
            raise MlflowError(id)

    def __getattr__(self, name):
        return lambda *args, **kwargs: self._calls.append((name, args, kwargs))


@pytest.fixture
def fake_mlflow(monkeypatch):
    runs, calls = {}, []
    library = types.SimpleNamespace(
        MlflowClient=lambda: Client(runs, calls),
        entities=types.SimpleNamespace(
            Metric=lambda *args: args, Param=lambda key, value: (key, value)
        ),
        exceptions=types.SimpleNamespace(MlflowException=MlflowError),
    )
    monkeypatch.setitem(sys.modules, "mlflow", library)
    return runs, calls


def test_mlflow_gets_everything_in_parts_and_knows_the_run_again(
    tmp_path, fake_mlflow, monkeypatch
):
    runs, calls = fake_mlflow
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "9")  # so that it is as before afterwards
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    config = settings("mlflow")
    config.class_names = tuple(f"class {i}" for i in range(300))
    many = {f"voc12/AP/猫{i}": 0.5 for i in range(250)}
    for _ in range(2):
        with loggers.loggers_in(tmp_path, config) as (writer,):
            writer.scalars(3, many)
            writer.images(3, {"a": IMAGE})
    assert runs == {"run0": ("experiment jdet", tmp_path.name)}
    # A server that does not answer is not waited for long, unless somebody says so.
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "60"
    batches = [given for name, _, given in calls if name == "log_batch"]
    assert max(len(part) for given in batches for part in given.values()) == 100
    metrics = [each for given in batches for each in given.get("metrics", ())]
    assert len(metrics) == 2 * 250 and metrics[0][0] == "voc12/AP/猫0" and metrics[0][3] == 3
    params = dict(each for given in batches for each in given.get("params", ()))
    assert params["train.batch_size"] == "32" and len(params["class_names"]) == 500
    assert ("update_run", ("run0",), {"status": "RUNNING"}) in calls
    assert calls[-1] == ("set_terminated", ("run0", "FINISHED"), {})
    runs.clear()  # somebody deleted it there
    with pytest.raises(ZeroDivisionError), loggers.loggers_in(tmp_path, config):
        raise ZeroDivisionError
    assert list(runs) == ["run0"] and calls[-1] == ("set_terminated", ("run0", "FAILED"), {})


def test_trackio_gets_a_name_of_its_own(tmp_path, monkeypatch):
    calls = []
    library = types.SimpleNamespace(
        init=lambda **given: calls.append(given) or Recorder(calls),
        Image=lambda array: array.shape,
    )
    monkeypatch.setitem(sys.modules, "trackio", library)
    for _ in range(2):
        with loggers.loggers_in(tmp_path, settings("trackio")) as (writer,):
            writer.scalars(2, {"loss": 1.0})
            writer.images(2, {"a": IMAGE})
    first, *logged, last = calls[:4]
    assert first["name"].startswith(f"{tmp_path.name}-") and calls[4]["name"] == first["name"]
    assert logged == [
        ("log", ({"loss": 1.0},), {"step": 2}),
        ("log", ({"a": (4, 6, 3)},), {"step": 2}),
    ]
    assert last[0] == "finish"


def test_a_tracker_that_fails_is_warned_about_once(tmp_path, fake_wandb, monkeypatch, caplog):
    class Broken:
        id = "x"

        def define_metric(self, *args, **kwargs):
            pass

        def log(self, values):
            raise ConnectionError("no route\nto host")

    monkeypatch.setattr(sys.modules["wandb"], "init", lambda **given: Broken())
    with loggers.loggers_in(tmp_path, settings("wandb")) as (writer,):
        for step in range(3):
            writer.scalars(step, {"loss": 1.0})
    (record,) = caplog.records
    assert "wandb failed (ConnectionError: no route); the run goes on" in record.getMessage()

    def refuses(**given):
        raise PermissionError("not logged in")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuses)
    with loggers.loggers_in(tmp_path, settings("wandb")) as writers:
        assert writers == []
    assert "not logged in" in caplog.records[-1].getMessage()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("mlflow",), r"pip install mlflow, or pip install --editable '.\[mlflow\]'"),
        (("wandbb",), "did you mean 'wandb'"),
        ("wandb", r"such as \('wandb',\)"),
    ],
)
def test_what_cannot_be_used_is_refused(names, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=said):
        loggers.libraries(names)


def test_what_process_0_cannot_import_ends_the_others_too(tmp_path, monkeypatch):
    told = (None, (ConfigError, "mlflow cannot be imported"))
    monkeypatch.setattr(loggers.jax, "process_index", lambda: 1)
    monkeypatch.setattr(loggers.jax, "process_count", lambda: 2)
    monkeypatch.setattr(broadcast, "gather", lambda value: [told, value])
    with pytest.raises(ConfigError, match="mlflow cannot be imported"):
        with loggers.loggers_in(tmp_path, settings("mlflow")):
            pass
