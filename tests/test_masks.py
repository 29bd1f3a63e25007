"""Masks from one end to the other: a small detector that learns them, through the ordinary commands."""

import json

import numpy as np
import pytest

from jdet import build, config, run
from jdet.data.image_io import write_image
from jdet.data.readers.decoder import Decoder
from jdet.data.segmentation import decode
from jdet.evaluation.drawing import draw_detections
from jdet.predict import main, predict
from jdet.types import DataError

pytestmark = pytest.mark.trains

NAME = "tests.mask_detector:MaskGrid"


def mask_config(steps=150, **changes):
    c = config.get_defaults()
    c.input_size = 48
    scene = dict(size=48, num_classes=2, min_scale=0.5, max_objects=1, clutter=0.0, noise=2.0)
    scene |= dict(keep_masks=True) | changes
    c.data.train = build.group("source", "shapes", count=2000, split="train", **scene)
    c.data.eval = build.group("source", "shapes", count=60, split="test", **scene)
    c.data.max_boxes, c.data.mask_size = 2, 28
    c.augment.expand, c.augment.photometric, c.augment.crop = 0.0, 0.0, False
    c.model = build.group("detector", NAME, nms_iou=0.4, width=8)
    c.train.batch_size, c.train.steps, c.train.save_every = 16, steps, steps
    c.optimizer.lr, c.optimizer.reference_batch, c.optimizer.schedule = 0.03, 0, "cosine"
    c.optimizer.clip_norm = 5.0
    c.eval.metrics = ("coco_segm", "coco")
    c.parallel.devices = 1
    return c


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("masks") / "run"
    return workdir, run.train(mask_config(), workdir)


def test_it_learns_masks(trained):
    workdir, result = trained
    assert result.metrics["coco/AP50"] > 0.3
    assert result.metrics["coco_segm/AP50"] > 0.3
    records = json.loads((workdir / "detections.json").read_text())
    sizes = {tuple(record["segmentation"]["size"]) for record in records}
    assert sizes and all(48 <= side <= 60 for size in sizes for side in size)


@pytest.mark.parametrize("passes", ["none", "flip"])
def test_predicted_masks_are_drawn_and_written(trained, tmp_path, passes):
    workdir, _ = trained
    records = json.loads((workdir / "detections.json").read_text())
    surest = max(records, key=lambda record: record["score"])["image_id"]  # images count from 1
    ground_truth = build.source(mask_config().data.eval, "config.data.eval")[surest - 1]
    write_image(tmp_path / "a.png", ground_truth.image)
    out = tmp_path / "out"
    arguments = ["--workdir", workdir, "--images", tmp_path / "a.png", "--out", out]
    assert main([*map(str, arguments), "--score=0.2", f"--tta={passes}"]) == 0
    records = json.loads((out / "detections.json").read_text())
    best = max(records, key=lambda record: record["score"])
    assert len(records) < 10
    mask, object_ = (
        decode(rle, *ground_truth.image.shape[:2])
        for rle in (best["segmentation"], ground_truth.masks[0])
    )
    assert (mask & object_).sum() / (mask | object_).sum() > 0.3
    (found,) = predict(workdir, tmp_path / "a.png", score=0.2, tta=passes)
    assert found.masks == tuple(record["segmentation"] for record in records)
    drawn = Decoder()(str(next((out / "images").iterdir())))
    bare = draw_detections(ground_truth.image, found._replace(masks=None), ("disc", "square"))
    assert np.abs(drawn.astype(int) - bare)[drawn.shape[0] // 2 :].max() > 30


def test_data_without_masks_is_refused_before_anything_is_compiled(tmp_path):
    c = mask_config(keep_masks=False)
    with pytest.raises(
        DataError,
        match=r"config.model.name='tests.mask_detector:MaskGrid' needs the objects' masks.*"
        r"config.data.train \(shapes\).*set --config.data.train.keep_masks=True",
    ):
        run.train(c, tmp_path / "run")
    c.data.train.keep_masks = True
    with pytest.raises(DataError, match="'coco_segm'.*config.data.eval.keep_masks=True"):
        run.train(c, tmp_path / "run")
    assert not (tmp_path / "run").exists()
