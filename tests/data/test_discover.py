"""What folders hold: which files are for training and for evaluation, and the sizes of objects."""

import json

import numpy as np
import pytest

from jdet.data.discover import Found, discover, object_statistics, split_of
from jdet.types import DataError, Example
from tests.data.sources.test_coco import annotation, content

CAPTIONS = {"images": [], "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]}


def detections(first):
    """Thirty images with an object each; those of different ``first`` are different."""
    ids = range(first, first + 30)
    return content(
        *(annotation(i, image_id=i, category_id=1 + 2 * (i % 2)) for i in ids), images=ids
    )


def write(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data))


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
def test_annotation_files_are_told_apart(tmp_path, files, train, evaluation):
    write(tmp_path, files)
    assert discover(tmp_path) == Found("coco", train, evaluation)


def test_files_that_name_no_split_are_not_guessed(tmp_path):
    write(tmp_path, {"latest.json": detections(0), "intervals.json": detections(100)})
    with pytest.raises(DataError, match="'train' and 'val' as words"):
        discover(tmp_path)


@pytest.mark.parametrize(
    "lists, found",
    [
        (["train", "val", "trainval", "test"], ("trainval", "test")),
        (["train", "val", "test"], ("train", "test")),
        (["train", "val"], ("train", "val")),
        (["trainval", "val"], ("trainval", None)),
        (["train"], ("train", None)),
    ],
)
def test_splits_of_a_voc_folder(tmp_path, lists, found):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    with pytest.raises(DataError, match="Main has no train.txt or trainval.txt"):
        discover(tmp_path)
    for name in lists:
        (tmp_path / "ImageSets" / "Main" / f"{name}.txt").touch()
    assert discover(tmp_path) == Found("voc", *found)


def test_a_folder_of_neither_shape(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(DataError, match="neither of VOC shape"):
        discover(tmp_path)
    with pytest.raises(DataError, match=f"{tmp_path}/nowhere is missing"):
        discover(tmp_path / "nowhere")


def test_words_of_splits(tmp_path):
    for path, split in (
        ("instances_train2017.json", "train"),
        ("valid/_annotations.coco.json", "val"),
        ("train/test_annotations.json", "test"),  # the file's own name counts first
        ("train_val.json", "trainval"),
        ("latest.json", ""),
    ):
        assert split_of(tmp_path.relative_to(tmp_path) / path) == split


class Squares:
    """Images of 20 × 40 pixels with 0, 1, 2 … squares of 10 pixels; the size of the last is unknown."""

    class_names = ("a",)

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        boxes = np.tile(np.array([0, 0, 10, 10], np.float32), (index, 1))
        labels = np.zeros(index, np.int32)
        return Example(str(index), "nowhere.png", boxes, labels, labels > 0, labels + 100.0)

    def image_size(self, index):
        return (20, 40) if index < self.count - 1 else None


def test_statistics_of_objects():
    found = object_statistics(Squares(4))
    assert found.most == 3
    np.testing.assert_allclose(found.sizes, [np.sqrt(100 / 800)] * 3)
    with pytest.raises(DataError, match="no boxes"):
        object_statistics(Squares(1))
