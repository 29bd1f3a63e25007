"""The experiment for one's own images: what it makes of a folder's splits."""

import json
import logging

import cv2
import numpy as np
import pytest

from jdet import build
from jdet.analysis import anchor_search, box_coverage, box_search
from jdet.data.transforms.warp import Warp
from jdet.ops.coverage import Objects
from tests.analysis.test_default_boxes import small_objects
from tests.data.sources.test_voc import annotation_xml, make_folder, object_xml
from tests.data.test_discover import detections
from tests.detectors import two_stage, wild
from tests.test_experiments import ROOT, load


def make(root, files):
    """Path → content, with the images of each file beside it."""
    encoded = cv2.imencode(".png", np.zeros((50, 64, 3), np.uint8))[1].tobytes()
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data))
        for image in data["images"]:
            (path.parent / image["file_name"]).write_bytes(encoded)
    return load(ROOT / "experiments" / "scratchdet_custom.py").get_config(f"root={root},cpu")


@pytest.mark.parametrize("evaluation", ["valid/boxes.json", None])
def test_training_and_evaluation_share_no_image(tmp_path, evaluation):
    """A split of its own, or about a tenth of the training images held out."""
    files = {"train/boxes.json": detections(0)}
    if evaluation:
        files[evaluation] = detections(100)
    config = make(tmp_path, files)
    assert config.data.train.annotation_file == f"{tmp_path}/train/boxes.json"
    assert config.data.eval.annotation_file == f"{tmp_path}/{evaluation or 'train/boxes.json'}"
    assert config.data.holdout == (0 if evaluation else 10)
    assert config.eval.metrics == ("coco", "voc")
    ids = [{source[i].id for i in range(len(source))} for source in build.sources(config)]
    assert ids[0] and ids[1] and not ids[0] & ids[1]
    assert len(ids[0] | ids[1]) == (60 if evaluation else 30)


def test_paths_follow_the_root(tmp_path):
    config = make(tmp_path, {"train.json": detections(0), "val.json": detections(100)})
    config.data.root = "elsewhere"
    assert config.data.train.annotation_file == "elsewhere/train.json"
    assert config.data.eval.annotation_file == "elsewhere/val.json"
    config = load(ROOT / "experiments" / "scratchdet_coco.py").get_config("")
    assert config.data.train.annotation_file == "data/coco/annotations/instances_train2017.json"
    config.data.root = "elsewhere"
    assert config.data.eval.annotation_file == "elsewhere/coco/annotations/instances_val2017.json"


@pytest.mark.parametrize("size", [0, 160])
def test_default_boxes_fit_the_objects(tmp_path, caplog, size):
    """The usual levels miss objects of a few pixels; those that are chosen match them, and it is said."""
    small_objects(tmp_path, images=12)
    caplog.set_level(logging.INFO)
    experiment = load(ROOT / "experiments" / "scratchdet_custom.py")
    config = experiment.get_config(f"root={tmp_path},cpu,size={size}")
    assert "Default boxes fitted to the data: input_size=" in caplog.text
    assert config.input_size == (size or 192)  # 12 pixels for cats
    source, _ = build.sources(config)
    names, resize = source.class_names, Warp(config.input_size)
    fitted = build.detector(config, names)
    objects = box_coverage.sampler(source, resize)
    assert not fitted.start_warning(objects, names, resize)
    usual = fitted.clone(
        neck=fitted.neck.clone(taps=("c3", "c4")), first_ratio=0.04, min_ratio=0.08, max_ratio=0.9
    )
    assert "no anchor reaches an IoU" in usual.start_warning(objects, names, resize)
    assert box_search.fit(objects(keep_ignored=True), fitted, len(names)) is None  # nothing to mend


def test_anchors_fit_the_objects(tmp_path, caplog):
    """Objects fifteen times as wide as high have no anchor of the usual shapes."""
    texts = {}
    for i in range(12):
        boxes = (2, 4 * i, 61, 4 * i + 3), (20, 2 * i, 39, 2 * i + 19)
        objects = map(object_xml, ("ribbon", "dog"), boxes)
        texts[f"p{i}"] = annotation_xml(*objects)
    make_folder(tmp_path, {"train": list(texts), "test": ["p0"]}, texts, labels=("ribbon", "dog"))
    caplog.set_level(logging.INFO)
    experiment = load(ROOT / "experiments" / "dense_custom.py")
    config = experiment.get_config(f"root={tmp_path},cpu,detector=retinanet")
    assert "Anchors fitted to the data: anchor_scale=" in caplog.text
    source, _ = build.sources(config)
    names, resize = source.class_names, build.resize(config)
    fitted = build.detector(config, names)
    assert min(config.model.aspect_ratios) < 0.2
    assert fitted.anchor_scale == config.model.anchor_scale
    objects = box_coverage.sampler(source, resize)
    assert not fitted.start_warning(objects, names, resize)
    usual = fitted.clone(anchor_scale=4.0, aspect_ratios=(0.5, 1.0, 2.0))
    assert "ribbon 100%" in usual.start_warning(objects, names, resize)
    assert anchor_search.fit(objects(keep_ignored=True), fitted, len(names)) is None


def test_anchors_of_an_rpn_fit_the_objects():
    """Found for small ones; where every object gets some anchor, or there are no shapes, nothing is."""
    low = np.random.default_rng(0).uniform(0, 50, (30, 2))
    objects = Objects(np.hstack([low, low + 8]), np.zeros(30, int), np.arange(30))
    detector = two_stage.make()
    found = anchor_search.fit(objects, detector, 1)
    assert found.setting.anchor_scale < 8 and np.nanmin(found.recall) > 0.9
    mended = detector.clone(rpn=detector.rpn.clone(**found.setting._asdict()))
    assert anchor_search.fit(objects, mended, 1) is None
    anything = detector.clone(rpn=detector.rpn.clone(min_pos_iou=0.0))
    assert anchor_search.fit(objects, anything, 1) is None
    assert anchor_search.fit(objects, wild.make("fcos"), 1) is None
