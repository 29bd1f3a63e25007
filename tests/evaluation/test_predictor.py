"""The predictor by itself; ``tests/test_predict.py`` has the command."""

import itertools
import json

import jax
import numpy as np
import pytest

from jdet import build
from jdet.evaluation import predictor as predictor_lib
from jdet.evaluation.predictor import Predictor
from jdet.train.checkpoints.checkpoint import load_for_inference
from jdet.types import ConfigError, DataError
from tests.evaluation.pixel_detector import PixelDetector
from tests.evaluation.saved_run import kept_run, rectangle, save_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_run(folder)
    return folder


@pytest.fixture
def pixels(monkeypatch):
    """Predicts with a detector that finds red rectangles exactly."""
    detector = PixelDetector()
    monkeypatch.setattr(build, "detector", lambda *_: detector)
    return detector


def counted(predictor, monkeypatch):
    """Sizes of the batches that the network is called with from now on."""
    calls, detect = [], predictor._detect

    def count(variables, images, sizes):
        calls.append(np.shape(images))
        return detect(variables, images, sizes)

    monkeypatch.setattr(predictor, "_detect", count)
    return calls


@pytest.mark.parametrize("mix", ["alternating", "random", "rare"])
def test_mixed_shapes_cost_little_more_than_one(workdir, tmp_path, pixels, monkeypatch, mix):
    """Batches are filled across the stream; order and boxes are those of the images."""
    predictor = Predictor(kept_run(workdir, tmp_path / "kept"), batch_size=4)
    calls = counted(predictor, monkeypatch)
    rng, count = np.random.default_rng(0), 400
    high = {
        "alternating": np.arange(count) % 2 == 1,
        "random": rng.random(count) < 0.3,
        "rare": np.arange(count) % 100 == 50,
    }[mix]
    images, boxes = [], []
    for number in range(count):
        size = (128, 64) if high[number] else (64, 128)
        x, y = rng.integers(0, 30, 2)
        boxes.append([x, y, x + 20, y + 20 + number % 10])
        images.append(rectangle(*size, boxes[-1]))
    found = predictor(images)
    assert [one.id for one in found] == [str(i) for i in range(count)]
    np.testing.assert_array_equal(np.concatenate([one.boxes for one in found]), boxes)
    assert len({shape for shape in calls}) == 2 and len(calls) * 4 <= 1.1 * count


def test_an_image_of_a_rare_shape_does_not_wait_for_ever(workdir, tmp_path, pixels, monkeypatch):
    monkeypatch.setattr(predictor_lib, "LOOK_AHEAD", 3)
    predictor = Predictor(kept_run(workdir, tmp_path / "kept"), batch_size=2)
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            size = (128, 64) if number == 1 else (64, 128)
            yield predictor.prepare(rectangle(*size, (0, 0, 16, 16)), str(number))

    found = predictor_lib.in_order(predictor.detect(endless()))
    assert [next(found).id for _ in range(4)] == ["0", "1", "2", "3"]
    assert len(read) < 2 * 3 + 6


def test_images_in_memory(workdir, pixels):
    predictor = Predictor(workdir, batch_size=2)
    images = [rectangle(64, 128, (32, 16, 64, 48)), rectangle(128, 64, (16, 32, 48, 64))]
    one, other = predictor(images, ["a", "b"])
    assert (one.id, other.id) == ("a", "b")
    np.testing.assert_array_equal(one.boxes, [[32, 16, 64, 48]])
    np.testing.assert_array_equal(other.boxes, [[16, 32, 48, 64]])
    assert predictor([]) == []
    for wrong in (images[0][..., 0], images[0] / 255, images[0][:0], np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="trained on uint8 .H, W, 3., RGB: give such"):
            predictor([wrong])
    with pytest.raises(ValueError, match="shorter|longer"):
        predictor(images, ["a"])


def test_statistics_are_measured_as_the_runs_evaluations_measure_them(workdir, tmp_path, caplog):
    config = json.loads((workdir / "config.json").read_text())
    config["eval"]["precise_bn"] = 1
    config["train"] |= {"batch_size": 2, "steps": 1}
    config["parallel"]["devices"] = 1
    config["data"] |= {"threads": 0}
    shapes = build.group("source", "shapes", count=4, size=64, num_classes=3).to_dict()
    config["data"] |= {"train": shapes, "eval": shapes}

    def folder(name, config):
        made = tmp_path / name
        made.mkdir()
        (made / "config.json").write_text(json.dumps(config))
        (made / "checkpoints").symlink_to(workdir / "checkpoints")
        return made

    measured = folder("measured", config)
    predictor = Predictor(measured, batch_size=1)
    assert predictor.precise_bn == 1 and not caplog.records
    running = Predictor(measured, batch_size=1, precise_bn=False)
    assert running.precise_bn == 0 and not caplog.records
    ours, theirs = (jax.device_get(p.variables["folded"]) for p in (predictor, running))
    apart = [not np.allclose(a, b) for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs))]
    assert all(apart)
    config["data"]["train"] = build.group(
        "source", "voc", root="/nowhere", splits="train"
    ).to_dict()
    gone = folder("gone", config)
    with pytest.raises(DataError, match="/nowhere"):
        Predictor(gone, precise_bn=True)
    assert Predictor(gone).precise_bn == 0
    (record,) = caplog.records
    text = record.getMessage()
    assert "over 1 training batches" in text and "/nowhere" in text and "--no-precise_bn" in text
    with pytest.raises(ConfigError, match="config.eval.precise_bn=0"):
        Predictor(workdir, precise_bn=True)


def test_step_picks_the_checkpoint(workdir, pixels):
    steps = {s: Predictor(workdir, step=s).step for s in ("best", "latest", 0, "10")}
    assert steps == {"best": 0, "latest": 10, 0: 0, "10": 10}
    assert Predictor(workdir).step == load_for_inference(workdir).step == 10
