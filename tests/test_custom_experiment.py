"""Which files the experiment for one's own images takes for training and for evaluation."""

import json

import cv2
import numpy as np
import pytest

from jdet import build
from jdet.types import ConfigError
from tests.data.sources.test_coco import annotation, content
from tests.test_experiments import ROOT, load

CAPTIONS = {"images": [], "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]}


def detections(first):
    """Thirty images with an object each; those of different ``first`` are different."""
    ids = range(first, first + 30)
    return content(
        *(annotation(i, image_id=i, category_id=1 + 2 * (i % 2)) for i in ids), images=ids
    )


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


def chosen(config):
    root = config.data.root
    sides = [config.data[key].annotation_file.removeprefix(f"{root}/") for key in ("train", "eval")]
    return sides[0], None if config.data.holdout else sides[1]


@pytest.mark.parametrize(
    "files, train, evaluation",
    [
        # As COCO is unpacked: other tasks on the same images lie beside the boxes.
        (
            {
                "annotations/captions_train2017.json": CAPTIONS,
                "annotations/captions_val2017.json": CAPTIONS,
                "annotations/instances_train2017.json": detections(0),
                "annotations/instances_val2017.json": detections(100),
                "annotations/person_keypoints_train2017.json": detections(200),
                "annotations/person_keypoints_val2017.json": detections(300),
            },
            "annotations/instances_train2017.json",
            "annotations/instances_val2017.json",
        ),
        # Roboflow: the folder names the split.
        (
            {
                "test/_annotations.coco.json": detections(200),
                "train/_annotations.coco.json": detections(0),
                "valid/_annotations.coco.json": detections(100),
            },
            "train/_annotations.coco.json",
            "valid/_annotations.coco.json",
        ),
        ({"instances_trainval.json": detections(0)}, "instances_trainval.json", None),
        ({"train_latest.json": detections(0)}, "train_latest.json", None),
        ({"boxes.json": detections(0)}, "boxes.json", None),
        (
            {"trainval.json": detections(0), "my-test.json": detections(100)},
            "trainval.json",
            "my-test.json",
        ),
        # "val" is a part of "trainval", and evaluating on it would flatter.
        ({"trainval.json": detections(0), "val.json": detections(0)}, "trainval.json", None),
        # Files that hold no boxes, or none at all.
        (
            {
                "info_train.json": {"images": [], "annotations": []},
                "train.json": detections(0),
                "train_results.json": {"images": [], "bbox": []},
                "val.json": CAPTIONS,
            },
            "train.json",
            None,
        ),
    ],
)
def test_files_are_told_apart(tmp_path, files, train, evaluation):
    config = make(tmp_path, files)
    assert chosen(config) == (train, evaluation)
    sources = build.sources(config)
    ids = [set(source[i].id for i in range(len(source))) for source in sources]
    assert ids[0] and ids[1] and not ids[0] & ids[1]


def test_files_that_name_no_split_are_not_guessed(tmp_path):
    with pytest.raises(ConfigError, match="'train' and 'val' as words"):
        make(tmp_path, {"latest.json": detections(0), "intervals.json": detections(100)})


def test_paths_follow_the_root(tmp_path):
    config = make(tmp_path, {"train.json": detections(0), "val.json": detections(100)})
    config.data.root = "elsewhere"
    assert config.data.train.annotation_file == "elsewhere/train.json"
    assert config.data.eval.annotation_file == "elsewhere/val.json"
    config = load(ROOT / "experiments" / "scratchdet_coco.py").get_config("")
    assert config.data.train.annotation_file == "data/coco/annotations/instances_train2017.json"
    config.data.root = "elsewhere"
    assert config.data.eval.annotation_file == "elsewhere/coco/annotations/instances_val2017.json"
