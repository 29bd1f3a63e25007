"""What a folder of labelled images holds: its shape, its splits, and how large its objects are.

A folder of VOC shape has ``Annotations/`` and lists of images in ``ImageSets/Main/*.txt``, itself or in one
below it, such as ``VOCdevkit/VOC2007``; or it has XML files beside their images. A folder of COCO shape has
JSON files with boxes anywhere below it. The names of lists and files, or their folders, speak of their
splits as words: ``instances_train2017.json``, ``valid/_annotations.coco.json``.
"""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from jdet.data.find_images import expanded, is_clutter
from jdet.data.image_formats import LFS_POINTER
from jdet.data.sources.annotations import first_reasons
from jdet.data.sources.label_text import decode
from jdet.data.sources.voc_files import is_flat, voc_folders
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

YEAR = re.compile(r"VOC20\d\d")
"""What the folders of PASCAL's development kit are called."""

VOC_PAIRS = (("trainval", "test"), ("train", "test"), ("train", "val"), ("trainval",), ("train",))
COCO_PAIRS = (("train", "val"), ("train", "test"), ("trainval", "test"), ("trainval",), ("train",))
"""Splits to train and to evaluate on, the preferred ones first."""


class Found(NamedTuple):
    """What a folder holds.

    Attributes:
        shape: "voc" or "coco".
        train: what to train on: a VOC split or union of splits, or a COCO annotation file, its path below
            the folder.
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
    images can be held out (``jdet.data.sources.holdout``). An annotation file or list that names no split
    is taken only where it is the only one. What is left out although it might be meant is told.

    Args:
        folder: where to look; ``~`` is the home folder.

    Raises:
        DataError: the folder is missing, it is of neither shape, or its files name no split to train on.
    """
    root = expanded(folder)
    if not root.is_dir():
        what = "is no folder" if root.exists() else "is missing"
        raise DataError(f"the folder of labelled images {root.absolute()} {what}")
    folders = voc_folders(root) or [root] * _has_annotations(root)
    other = not all(folder == root or YEAR.fullmatch(folder.name) for folder in folders)
    files = annotation_files(root) if other or not folders else {}
    if not folders and not files and is_flat(root):
        return Found("voc", *_flat_pair(root))
    if folders and not files:
        return Found("voc", *(_voc_pair if len(folders) == 1 else _voc_years)(folders))
    pair = next((pair for pair in COCO_PAIRS if files.keys() >= set(pair)), None)
    if len(files) == 1:
        pair = tuple(files)
    if pair is None:
        raise DataError(f"{root} is {_neither(root, files)}")
    for split in files.keys() - set(pair) - SPLITS.keys():
        logging.warning(
            "%s is not used: neither its name nor its folder says 'train', 'val' or 'test'", split
        )
    return Found("coco", files[pair[0]], files[pair[1]] if len(pair) == 2 else None)


def voc_splits(folder: Path) -> dict[str, str]:
    """Split (the list itself where it names none) → list in ``ImageSets/Main``.

    Lists per class, such as ``cat_train`` beside ``train``, are left out.
    """
    stems = sorted(path.stem for path in (folder / "ImageSets" / "Main").glob("*.txt"))
    found: dict[str, str] = {}
    for stem in sorted(stems, key=lambda stem: (stem not in SPLITS, stem)):
        if not any(stem.endswith(f"_{other}") for other in stems):
            found.setdefault(split_of(Path(f"{stem}.txt")) or stem, stem)
    return found


def _has_annotations(root: Path) -> bool:
    """Whether a folder is of VOC shape but for its lists; listed, as some systems know no case."""
    if "Annotations" not in os.listdir(root):
        return False
    folder = root / "Annotations"
    return any(folder.rglob("*.xml")) or not any(folder.rglob("*.json"))


def _voc_pair(folders: list[Path]) -> tuple[str, str | None]:
    """The lists of the only folder to train and to evaluate on."""
    (folder,) = folders
    splits = voc_splits(folder)
    pair = next((pair for pair in VOC_PAIRS if splits.keys() >= set(pair)), None)
    if len(splits) == 1:
        pair = tuple(splits)
    if pair is None:
        lists = folder / "ImageSets" / "Main"
        held = f"; of {', '.join(splits.values())}, rename one" if splits else ""
        raise DataError(
            f"{lists} has no train.txt or trainval.txt{held}; list the images there, all of them with "
            f"`cd '{folder.absolute()}' && mkdir -p ImageSets/Main && ls Annotations > "
            "ImageSets/Main/train.txt`"
        )
    return splits[pair[0]], splits[pair[1]] if len(pair) == 2 else None


def _flat_pair(root: Path) -> tuple[str, str | None]:
    """The sub-folders to train and to evaluate on; all of them where their names do not speak of splits."""
    names = sorted({path.parent.name for path in root.glob("*/*.xml")})
    splits = {split_of(Path(name)): name for name in reversed(names)}
    pair = next((pair for pair in COCO_PAIRS if splits.keys() >= set(pair)), None)
    if pair is None or any(root.glob("*.xml")):
        return ".", None
    return splits[pair[0]], splits[pair[1]] if len(pair) == 2 else None


def _voc_years(folders: list[Path]) -> tuple[str, str | None]:
    """The same over VOC20xx: all to train on, and the first year's test to evaluate on; else all val."""
    root = folders[0].parent
    if not all(YEAR.fullmatch(folder.name) for folder in folders):
        raise DataError(
            f"{root} holds several data sets: {', '.join(map(str, folders))}; name one of them"
        )
    splits = {folder.name[3:]: voc_splits(folder) for folder in folders}
    for train, test in (
        ("trainval", "test"),
        ("train", "test"),
        ("train", "val"),
        ("trainval", ""),
    ):
        trained = [f"{year}:{own[train]}" for year, own in splits.items() if train in own]
        tested = [f"{year}:{own[test]}" for year, own in splits.items() if test in own]
        if len(trained) == len(splits) and (tested or not test):
            chosen = tested if test == "val" else tested[:1]
            return "+".join(trained), "+".join(chosen) or None
    raise DataError(
        f"{root} holds {', '.join(folder.name for folder in folders)}, which have no lists to train on in "
        "common (trainval.txt or train.txt); name one of them"
    )


def annotation_files(root: Path) -> dict[str, str]:
    """Split (the path itself where it names none) → annotation file with boxes, below ``root``.

    Of several for a split, one with ``instances`` in its name goes first, then one higher up. A file that
    names a split and is not used is told.
    """
    found: dict[str, str] = {}
    paths = [path.relative_to(root) for path in root.rglob("*.json") if path.is_file()]
    paths = [path for path in paths if not is_clutter(path)]
    for path in sorted(paths, key=lambda p: ("instances" not in _words(p.name), len(p.parts), p)):
        split = split_of(path)
        if OTHER_TASKS & _words(path.name):
            continue
        if not is_detection_file(root / path):
            reason = "it holds no boxes in COCO's form"
        elif split in found:
            reason = f"{found[split]} is the file of {split!r}"
        else:
            found[split or path.as_posix()] = path.as_posix()
            continue
        if split:
            logging.warning("%s is not used: %s", root / path, reason)
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
        name = getattr(source, "name", type(source).__name__)
        raise DataError(
            f"{name}: the {len(source)} training images carry no boxes; there is nothing to learn"
            f"{first_reasons(getattr(source, 'defects', ()))}"
        )
    return ObjectStatistics(np.concatenate(sizes), most)


def _words(text: str) -> set[str]:
    """``instances_train2017.json`` → instances, train, 2017, json."""
    return set(re.findall(r"[a-z]+|[0-9]+", text.lower()))


def is_detection_file(path: Path) -> bool:
    """Whether a JSON file has what COCO's detection files have; nothing is parsed.

    That is images and annotations with boxes or segmentations, or images and no annotations at all, as of a
    split in which nothing is to be found.

    Raises:
        DataError: it is a Git LFS pointer.
    """
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        head = text[:64]
        if head.startswith(LFS_POINTER):
            raise DataError(f"{path} is a Git LFS pointer, not the file itself; `git lfs pull`")
        if b"\0" in head:  # UTF-16
            return _has_boxes(decode(text[:], str(path)).encode())
        return _has_boxes(text)


def _has_boxes(text: mmap.mmap | bytes) -> bool:
    if text.find(b'"images"') < 0 or text.find(b'"annotations"') < 0:
        return False
    if text.find(b'"bbox"') >= 0 or text.find(b'"segmentation"') >= 0:
        return True
    some, none = rb'"images"\s*:\s*\[\s*\{', rb'"annotations"\s*:\s*\[\s*\]'
    return bool(re.search(some, text) and re.search(none, text))


def _neither(root: Path, files: dict[str, str]) -> str:
    """What is wrong with a folder in which nothing to train on was found."""
    if files:
        return (
            f"of COCO shape, but of its annotation files ({', '.join(sorted(files.values()))}) none has "
            "'train' as a word in its name or folder; write 'train' and 'val' as words into their names"
        )
    hint = ""
    if any(root.rglob("*.xml")):  # deeper than is looked for
        hint = (
            "; its XML files belong into Annotations, the images into JPEGImages, and their names into "
            "ImageSets/Main/train.txt"
        )
    elif any(root.glob("*.yaml")) or any(root.rglob("labels/*.txt")):
        hint = "; labels of YOLO's form are not read: export them in COCO's"
    elif other := next(root.rglob("*.json"), None):
        hint = f"; {other.relative_to(root)} holds no boxes in COCO's form"
    return (
        "neither of VOC shape (Annotations/, ImageSets/Main/) nor of COCO shape (JSON files with boxes, "
        f"and 'train' and 'val' as words in their names){hint}"
    )
