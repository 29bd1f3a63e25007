"""Runs that start from another: said, recorded, resumed without the source, and frozen in part."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest

from jdet.train.checkpoints.checkpoint import load_for_inference
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
    assert records[0]["init_from"] == records[1]["init_from"]
    assert records[0]["init_from"]["step"] == 4 and "alone" not in records[0]["init_from"]["run"]
    alone = json.loads((tmp_path / "alone" / "run.json").read_text())
    assert alone["init_from"] is None
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
    record = json.loads((tmp_path / "new" / "run.json").read_text())["init_from"]
    assert record["modules"]["backbone"]["left"] == record["modules"]["head"]["loaded"] == [0, 0]


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
