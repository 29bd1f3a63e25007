"""What a folder of labelled images holds: its shape, its splits, and how large its objects are.

A folder of VOC shape has ``Annotations/`` and lists of images in ``ImageSets/Main/*.txt``. A folder of COCO
shape has JSON files with boxes somewhere below it, whose names or folders speak of their splits as words:
``instances_train2017.json``, ``valid/_annotations.coco.json``.
"""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jdet.types import DataError, Source

SPLITS = {
    "train": {"train", "training"},
    "trainval": {"trainval"},
    "val": {"val", "valid", "validation"},
    "test": {"test", "testing"},
}
"""Words that speak of each split."""

OTHER_TASKS = {"captions", "keypoints", "panoptic"}
"""Words of files that label the same images for something else than detection."""

VOC_PAIRS = (("trainval", "test"), ("train", "test"), ("train", "val"), ("trainval",), ("train",))
COCO_PAIRS = (("train", "val"), ("train", "test"), ("trainval", "test"), ("trainval",), ("train",))
"""Splits to train and to evaluate on, the preferred ones first."""


class Found(NamedTuple):
    """What a folder holds.

    Attributes:
        shape: "voc" or "coco".
        train: what to train on: a VOC split, or a COCO annotation file, its path below the folder.
        evaluation: what to evaluate on, likewise; None where there is one split alone.
    """

    shape: str
    train: str
    evaluation: str | None


class ObjectStatistics(NamedTuple):
    """Objects of a data set.

    Attributes:
        sizes: float [n], square root of each object's area relative to its image's.
        most: objects in the image that has most.
    """

    sizes: np.ndarray
    most: int


def discover(folder: str | os.PathLike[str]) -> Found:
    """Finds out what a folder holds.

    Of a data set without a split of its own for evaluation (``evaluation`` None), a part of the training
    images can be held out (``jdet.data.sources.holdout``). An annotation file that names no split is taken
    only where it is the only one.

    Raises:
        DataError: the folder is missing, it is of neither shape, or its files name no split to train on.
    """
    root = Path(folder)
    if not root.is_dir():
        what = "is no folder" if root.exists() else "is missing"
        raise DataError(f"the folder of labelled images {root.absolute()} {what}")
    if (root / "Annotations").is_dir():
        lists = root / "ImageSets" / "Main"
        names = {path.stem for path in lists.glob("*.txt")}
        pair = next((pair for pair in VOC_PAIRS if names.issuperset(pair)), None)
        if pair is None:
            raise DataError(f"{lists} has no train.txt or trainval.txt; list the images there")
        return Found("voc", pair[0], pair[1] if len(pair) == 2 else None)

    files = annotation_files(root)
    pair = next((pair for pair in COCO_PAIRS if files.keys() >= set(pair)), None)
    if len(files) == 1:
        pair = tuple(files)
    if pair is None:
        raise DataError(
            f"{root} is neither of VOC shape (Annotations/, ImageSets/Main/) nor of COCO shape (JSON "
            "files with boxes, and 'train' and 'val' as words in their names)"
        )
    return Found("coco", files[pair[0]], files[pair[1]] if len(pair) == 2 else None)


def annotation_files(root: Path) -> dict[str, str]:
    """Split (the path itself where it names none) → annotation file with boxes, below ``root``.

    Of several for a split, one with ``instances`` in its name goes first, then one higher up.
    """
    found: dict[str, str] = {}
    paths = [path.relative_to(root) for path in root.rglob("*.json") if path.is_file()]
    for path in sorted(paths, key=lambda p: ("instances" not in _words(p.name), len(p.parts), p)):
        split = split_of(path) or path.as_posix()
        other_task = OTHER_TASKS & _words(path.name)
        if split not in found and not other_task and _has_boxes(root / path):
            found[split] = path.as_posix()
    return found


def split_of(path: Path) -> str:
    """The split that a file's name, or else the nearest of its folders, speaks of; "" for none."""
    for part in reversed(path.parts):
        named = [split for split, names in SPLITS.items() if names & _words(part)]
        if named:
            return "trainval" if set(named) == {"train", "val"} else named[0]
    return ""


def object_statistics(source: Source) -> ObjectStatistics:
    """Sizes and counts of a source's objects; no image is opened.

    Args:
        source: with ``image_size``; images whose size it does not know count for ``most`` alone.

    Raises:
        DataError: there are no objects.
    """
    image_size = getattr(source, "image_size", lambda index: None)
    sizes, most = [], 1
    for index in range(len(source)):
        boxes, size = source[index].boxes, image_size(index)
        most = max(most, len(boxes))
        if size and len(boxes):
            height, width = size
            sides = (boxes[:, 2:] - boxes[:, :2]) / (width, height)
            sizes.append(np.sqrt(sides.prod(-1)))
    if not sizes:
        raise DataError("the training images carry no boxes; there is nothing to learn")
    return ObjectStatistics(np.concatenate(sizes), most)


def _words(text: str) -> set[str]:
    """``instances_train2017.json`` → instances, train, 2017, json."""
    return set(re.findall(r"[a-z]+|[0-9]+", text.lower()))


def _has_boxes(path: Path) -> bool:
    """Whether a JSON file has what COCO's detection files have; nothing is parsed."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return all(text.find(key) >= 0 for key in (b'"images"', b'"annotations"', b'"bbox"'))
