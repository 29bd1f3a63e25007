"""A tiny detector learns shapes, is stopped, goes on, is reloaded, and finds objects in files."""

import json

import cv2
import jax
import numpy as np
import pytest

from jdet import build, run
from jdet.config import get_defaults
from jdet.predict import predict
from jdet.types import ConfigError

pytestmark = pytest.mark.trains


def tiny(steps):
    c = get_defaults()
    c.input_size = 64
    shapes = dict(size=64, num_classes=2, min_scale=0.3, max_objects=2, clutter=1.0)
    c.data.train = build.group("source", "shapes", count=500, split="train", **shapes)
    c.data.eval = build.group("source", "shapes", count=60, split="test", **shapes)
    c.data.max_boxes = 4
    c.augment = build.group("augment", "none")
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "resnet", depth=18, width=0.25),
        neck=build.group("neck", "residual_extras", width=0.25),
        first_ratio=0.25,
        min_ratio=0.4,
    )
    c.train.batch_size = 16
    c.train.steps = steps
    c.train.log_every = 40
    c.optimizer.lr = 0.1
    c.optimizer.reference_batch = 16
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup = 20
    c.eval.batch_size = 20
    c.eval.metrics = ("voc", "coco")
    c.eval.images = 2
    c.parallel.devices = 1
    return c


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    return run.train(tiny(450), workdir), workdir


def test_it_learns(trained):
    result, workdir = trained
    assert result.status == "completed" and result.exit_code == 0
    # Chance, by boxes at random places with right sizes, stays below 0.05 here.
    assert result.metrics["voc07/mAP"] > 0.25
    report = json.loads((workdir / "report.json").read_text())
    assert report["step"] == 450
    assert report["metrics"]["voc07/mAP"] == pytest.approx(result.metrics["voc07/mAP"])
    assert {"voc12/mAP", "voc07/AP/disc", "coco/AP", "coco/AP50"} <= set(report["metrics"])
    assert len(list((workdir / "detections").glob("*.jpg"))) == 2
    assert (workdir / "curves.png").stat().st_size > 1000
    losses = [
        record["loss"]
        for record in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
        if "loss" in record
    ]
    assert losses[-1] < 0.5 * losses[0]
    log = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    looks = [record for record in log if record.get("event") == "learning"]
    assert [look["step"] for look in looks] == [23, 45, 113]
    assert [look["causes"] for look in looks] == ["", "", ""]  # no false alarm
    assert looks[0]["learning/images"] == 128
    assert looks[-1]["learning/near"] > looks[0]["learning/near"]
    assert report["learning"] == looks[-1]


def test_evaluating_the_checkpoint_gives_the_same_numbers(trained):
    result, workdir = trained
    again = run.evaluate(workdir)
    for name, value in result.metrics.items():
        assert again[name] == pytest.approx(value, nan_ok=True), name


def test_evaluating_with_statistics_measured_anew(trained):
    """They differ from the running ones by a little, and are the same each time."""
    result, workdir = trained
    config = tiny(450)
    config.eval.precise_bn = 4
    first = run.evaluate(workdir, config=config)["voc12/mAP"]
    assert first == run.evaluate(workdir, config=config)["voc12/mAP"]
    assert first == pytest.approx(result.metrics["voc12/mAP"], abs=0.1)
    assert first != result.metrics["voc12/mAP"]
    assert json.loads((workdir / "report.json").read_text())["settings"]["precise_bn"] == 4


def test_another_network_is_refused_and_other_thresholds_are_not(trained):
    _, workdir = trained
    config = tiny(450)
    config.model.first_ratio = 0.2
    config.input_size = 96
    with pytest.raises(ConfigError, match="config.input_size=96 .trained with 64.*first_ratio=0.2"):
        run.evaluate(workdir, config=config)
    config = tiny(450)
    config.model.score_threshold = 0.9
    assert run.evaluate(workdir, config=config)["voc12/mAP"] < 0.9


def test_predict_finds_objects_in_files(trained, tmp_path):
    _, workdir = trained
    source = build.source(tiny(1).data.eval, "eval")
    found = total = 0
    for i in range(12):
        cv2.imwrite(str(tmp_path / f"{i}.png"), source[i].image[..., ::-1])
    files = [tmp_path / f"{i}.png" for i in range(12)]
    for i, result in enumerate(predict(workdir, files, score=0.1)):
        ground_truth = source[i]
        total += len(ground_truth.boxes)
        centres = (result.boxes[:, :2] + result.boxes[:, 2:]) / 2
        for box, label in zip(ground_truth.boxes, ground_truth.labels):
            inside = ((centres > box[:2]) & (centres < box[2:])).all(-1)
            found += bool((inside & (result.labels == label)).any())
    assert found >= 0.4 * total


def test_a_second_start_changes_nothing(trained):
    result, workdir = trained
    before = (workdir / "metrics.jsonl").read_text()
    again = run.train(tiny(450), workdir)
    assert again.step == 450 and again.status == "completed"
    assert (workdir / "metrics.jsonl").read_text() == before
    jax.tree.map(np.testing.assert_array_equal, again.state.params, result.state.params)
