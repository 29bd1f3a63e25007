"""What training a config with phases hands to the loop; the trainings themselves are stood in for."""

import json
from types import SimpleNamespace

import jax
import pytest

from jdet import build, run
from jdet.config import get_defaults
from jdet.types import ConfigError
from tests.test_run_data import tiny


def config():
    c = tiny(get_defaults())
    shapes = dict(size=64, num_classes=2, min_scale=0.3, max_objects=2)
    c.data.train = build.group("source", "shapes", count=6, split="train", **shapes)
    c.data.eval = build.group("source", "shapes", count=2, split="test", **shapes)
    c.phases = ("low", "high")
    c.phase.low = dict(train=dict(batch_size=4))
    c.phase.high = dict(
        input_size=96,
        data=dict(share=0.9, tile=dict(side=32)),
        model=dict(norm="fixed", head_norm="fixed", backbone=dict(freeze_at=2)),
        train=dict(steps=3),
    )
    return c


@pytest.fixture
def trained(monkeypatch):
    """Stands in for the loop: notes what it is given, and leaves a run that is completed."""
    found = []

    def train(config, workdir, *, detector, train_stream, outlook, **more):
        workdir.mkdir(exist_ok=True)
        (workdir / "config.json").write_text(config.to_json())
        record = dict(
            status="completed", step=config.train.steps, num_examples=more["num_examples"]
        )
        (workdir / "run.json").write_text(json.dumps(record | dict(metrics={"voc07/mAP": 0.5})))
        with train_stream(0) as stream:
            batch = next(stream)
        counts = more["train_images"], more["num_examples"]
        found.append((workdir.name, config, detector, outlook, batch.images.shape, counts))
        return SimpleNamespace(status="completed", metrics={}, state=None, step=1)

    monkeypatch.setattr(run.loop, "train", train)
    return found


def test_each_phase_has_its_own_config_data_and_model(tmp_path, trained):
    run.train(config(), tmp_path / "run")
    (name, low, _, outlook, shape, images), (other, high, detector, after, larger, fewer) = trained
    assert (name, other) == ("low", "high") and (shape, larger) == ((4, 64, 64, 3), (2, 96, 96, 3))
    assert images == (6, 6) and fewer[0] <= 6 and fewer[1] >= 9 * fewer[0]  # tiles of 96 pixels
    assert high.data.share == 0.9
    assert (outlook.label, after.label) == ("phase 1/2 low", "phase 2/2 high")
    assert outlook.ahead == 3 * (2 * 96**2) / (4 * 64**2) and after.ahead == 0
    assert not low.optimizer.rules and high.optimizer.rules[0] == ("backbone/stem/.*", 0.0, 0.0)
    assert high.init_from.path == "phase:low" and not high.phases
    assert low.class_names == high.class_names
    stats = jax.eval_shape(lambda: run.state.init_variables(detector, high, 2))[1]
    assert "scale" in stats["backbone"]["stem"]["conv1"]["norm"]  # fixed norms keep it there
    record = json.loads((tmp_path / "run" / "phases.json").read_text())["phases"]
    assert [one["status"] for one in record] == ["completed", "completed"]
    run.train(config(), tmp_path / "run")  # the first is not begun again
    assert [each[0] for each in trained] == ["low", "high", "high"]


def test_what_is_wrong_with_a_later_phase_is_found_first(tmp_path, trained):
    c = config()
    c.phase.high.data.holdout = 1000
    with pytest.raises(Exception, match="holdout=1000 leaves one side"):
        run.train(c, tmp_path / "run")
    c = config()
    c.phase.high.train.steps = 0
    with pytest.raises(ConfigError, match="phase high: train.steps=0 and train.epochs=0"):
        run.train(c, tmp_path / "run")
    assert not trained and not (tmp_path / "run").exists()
