"""The experiment for one's own images: what it makes of a folder's splits."""

import json
import logging

import cv2
import numpy as np
import pytest

from jdet import build
from jdet.analysis import box_coverage, box_search
from jdet.data.transforms.warp import Warp
from tests.analysis.test_default_boxes import small_objects
from tests.data.test_discover import detections
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
    assert config.input_size == (size or 128)
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
