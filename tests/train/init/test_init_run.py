"""Runs that start from another: said, recorded, resumed without the source, and frozen in part."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest

from jdet.train.checkpoints.checkpoint import load_for_inference
from jdet.train.init import transforms
from jdet.types import ConfigError
from tests.train import fake
from tests.train.test_loop import assert_identical, train

SETTINGS = dict(train__save_every=2, train__keep=9, train__ema=0.9)


@pytest.fixture
def source(tmp_path):
    """A run of four steps with a moving average."""
    train(tmp_path / "source", seed=5, **dict(SETTINGS, train__steps=4))
    return tmp_path / "source"


def stopping(start):
    """The stream of all runs; the signal comes before the fourth step."""
    for k, batch in enumerate(fake.stream(start), start):
        if k == 3:
            signal.raise_signal(signal.SIGTERM)
        yield batch


def test_resumes_bit_for_bit_when_the_source_is_gone(source, tmp_path, capsys):
    settings = dict(SETTINGS, init_from__path=str(source))
    alone, whole = train(tmp_path / "alone", **SETTINGS), train(tmp_path / "whole", **settings)
    kernels = (run.state.params["backbone"]["conv"]["kernel"] for run in (alone, whole))
    assert not np.array_equal(*map(jax.device_get, kernels))
    capsys.readouterr()
    assert train(tmp_path / "cut", stream=stopping, **settings).status == "interrupted"
    said = capsys.readouterr().out
    line = f"of 1,658 parameters and 8 of 8 statistics from {source} step 4 (moving average)"
    assert f"starting with 1,658 {line}" in said and "nothing pre-trained" not in said

    shutil.rmtree(source)
    resumed = train(tmp_path / "cut", **settings)
    said = capsys.readouterr().out
    assert "resuming from step" in said and f"this run began with 1,658 {line}" in said
    assert resumed.status == "completed"
    assert_identical(resumed.state, whole.state)
    records = [json.loads((tmp_path / run / "run.json").read_text()) for run in ("cut", "whole")]
    (loaded,), (again,) = (record["init_transforms"] for record in records)
    assert loaded == again and loaded["name"] == "init_from"
    assert loaded["step"] == 4 and "alone" not in loaded["run"]
    alone = json.loads((tmp_path / "alone" / "run.json").read_text())
    assert alone["init_transforms"] == []
    with pytest.raises(ConfigError, match=r"init_from.path: '.*source' → ''"):
        train(tmp_path / "cut", **SETTINGS)


def test_says_when_nothing_is_pre_trained(tmp_path, capsys):
    train(tmp_path, train__steps=1)
    assert "starting from random weights, nothing pre-trained, seed 0" in capsys.readouterr().out


def test_loaded_parts_can_be_frozen(source, tmp_path):
    """Only the backbone is loaded, and no step and no decay moves it."""
    result = train(
        tmp_path / "new",
        init_from__path=str(source),
        init_from__weights="raw",
        init_from__include=("backbone/.*",),
        optimizer__rules=(("backbone/.*", 0.0, 0.0),),
        optimizer__weight_decay=0.1,
    )
    params, old = jax.device_get(result.state.params), load_for_inference(source).params
    jax.tree.map(np.testing.assert_array_equal, params["backbone"], old["backbone"])
    assert not np.array_equal(params["head"]["kernel"], old["head"]["kernel"])
    (record,) = json.loads((tmp_path / "new" / "run.json").read_text())["init_transforms"]
    assert record["modules"]["backbone"]["left"] == record["modules"]["head"]["loaded"] == [0, 0]


class Times:
    """Multiplies every parameter."""

    def __init__(self, name, factor):
        self.name, self.factor, self.applied = name, factor, 0

    def __call__(self, params, stats):
        self.applied += 1
        return jax.tree.map(lambda x: x * self.factor, params), stats

    def describe(self):
        return f"{self.name}: all × {self.factor} ({self.applied})"

    def record(self):
        return {"factor": self.factor}


class Cleared(Times):
    def __call__(self, params, stats):
        return {name: x for name, x in params.items() if name != "head"}, stats


def test_transforms_come_in_order_after_the_loading_and_once(source, tmp_path, capsys):
    settings = dict(SETTINGS, init_from__path=str(source))
    list_of = lambda: [Times("third", 3.0), Times("half", 0.5)]  # noqa: E731
    still = dict(optimizer__lr=1e-30, optimizer__weight_decay=0.0)
    begun = train(tmp_path / "begun", init_transforms=list_of(), **settings, **still).state
    average = load_for_inference(source).ema["params"]
    for tree in (begun.params, begun.ema["params"]):  # the average begins with what comes out
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b * np.float32(3) * np.float32(0.5), 1e-6),
            jax.device_get(tree),
            average,
        )
    said = capsys.readouterr().out
    assert "third: all × 3.0 (1)\nhalf: all × 0.5 (1)\nstarting with 1,658 of" in said
    assert "(moving average), then third, then half; all else as seed 0 has it" in said
    recorded = json.loads((tmp_path / "begun" / "run.json").read_text())["init_transforms"]
    assert [each["name"] for each in recorded] == ["init_from", "third", "half"]
    assert recorded[1] == {"name": "third", "factor": 3.0}

    whole = train(tmp_path / "whole", init_transforms=list_of(), **settings)
    given = list_of()
    train(tmp_path / "cut", stream=stopping, init_transforms=list_of(), **settings)
    capsys.readouterr()
    resumed = train(tmp_path / "cut", init_transforms=given, **settings)
    assert_identical(resumed.state, whole.state)
    assert [each.applied for each in given] == [0, 0]
    said = capsys.readouterr().out
    assert "this run began with 1,658 of" in said and ", then third, then half\n" in said


def test_transform_that_changes_the_network_is_refused(tmp_path):
    with pytest.raises(ValueError, match="odd returns other arrays or shapes"):
        train(tmp_path, init_transforms=[Cleared("odd", 1.0)])


def test_records_of_earlier_versions_are_read():
    record = {"run": "runs/a", "step": 4, "weights": "raw", "parameters": [1, 2]}
    record["statistics"] = [0, 0]
    (found,) = transforms.recorded_in({"init_from": record})
    assert found == {"name": "init_from", **record}
    assert transforms.summary([found]).startswith("1 of 2 parameters and 0 of 0 statistics from")
    assert transforms.recorded_in({"init_from": None}) == transforms.recorded_in({}) == []


def test_what_does_not_fit_leaves_no_trace(source, tmp_path):
    new = tmp_path / "new"
    for path, message in (
        (tmp_path / "nowhere", "does not exist; give the workdir of a run"),
        (tmp_path, "is not a run with checkpoints"),
        (source / "checkpoints", "is not a run with checkpoints"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(new, init_from__path=str(path))
    with pytest.raises(ConfigError, match="backbone/conv/bias: absent in the source"):
        train(new, fake.FakeDetector("none"), init_from__path=str(source))
    with pytest.raises(ConfigError, match="does not say which of its layers belong to classes"):
        train(new, init_from__path=str(source), class_names=("a", "b"))
    assert not new.exists()
    kept = train(
        new, fake.FakeDetector("none"), init_from__path=str(source), init_from__strict=False
    )
    assert kept.status == "completed"


def test_the_source_is_never_discarded(source):
    before = sorted(source.rglob("*"))
    with pytest.raises(ConfigError, match="is the workdir of this very run"):
        train(source, overwrite=True, init_from__path=str(source))
    assert sorted(source.rglob("*")) == before


def test_run_from_before_a_key_existed_goes_on(tmp_path):
    """What its config does not say had the default."""
    first = train(tmp_path, stream=stopping)
    assert first.status == "interrupted"
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    del config["init_from"], config["train"]["ema"]
    file.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"train.ema: 0.0 → 0.9"):
        train(tmp_path, train__ema=0.9)
    assert train(tmp_path).status == "completed"
