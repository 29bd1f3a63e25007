"""The words in names of files and folders that speak of a split."""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Container, Iterable, Mapping
from pathlib import PurePath

SPLITS = {
    "train": {"train", "training"},
    "trainval": {"trainval"},
    "val": {"val", "valid", "validation"},
    "test": {"test", "testing"},
}
"""Words that speak of each split."""

PAIRS = (("train", "val"), ("train", "test"), ("trainval", "test"), ("trainval",), ("train",))
"""Splits to train and to evaluate on, the preferred ones first."""

ALL = "."
"""What stands for all images of a folder, whatever their split."""


def words(text: str) -> set[str]:
    """``instances_train2017.json`` → instances, train, 2017, json."""
    return set(re.findall(r"[a-z]+|[0-9]+", text.lower()))


def split_of(path: PurePath | str) -> str:
    """The split that a file's name, or else the nearest of its folders, speaks of; "" for none."""
    for part in reversed(str(path).split("/")):
        named = [split for split, names in SPLITS.items() if names & words(part)]
        if named:
            return "trainval" if set(named) == {"train", "val"} else named[0]
    return ""


def split_of_folder(path: str) -> str:
    """The split that the folders of a file speak of: its own name may show a train, or be a test."""
    return _split_of_folder(posixpath.dirname(path))


_split_of_folder = functools.lru_cache(1024)(split_of)
"""Many files are in few folders."""


def by_folder(paths: Iterable[str]) -> dict[str, str]:
    """Split that the folders speak of → the first of the files in them."""
    found: dict[str, str] = {}
    for path in paths:
        found.setdefault(split_of_folder(path), path)
    return found


def pair_of(splits: Container[str] | Mapping[str, object]) -> tuple[str, ...] | None:
    """The first of ``PAIRS`` whose splits are all there; None: there is none to train on."""
    return next((pair for pair in PAIRS if all(split in splits for split in pair)), None)
