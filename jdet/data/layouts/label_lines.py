"""Text files with an object on each line: those of YOLO and of DOTA, told apart by a look at a few."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from jdet.data.layouts.listing import Listing, sample
from jdet.data.layouts.source import CLASS_LISTS
from jdet.data.sources.label_text import read_text
from jdet.types import DataError

NOT_LABELS = {
    *CLASS_LISTS,
    *("train.txt", "val.txt", "valid.txt", "test.txt", "trainval.txt", "predefined_classes.txt"),
    *("readme.txt", "readme.roboflow.txt", "readme.dataset.txt", "license.txt", "notes.txt"),
    *("requirements.txt", "defects.txt", "attribution.txt"),
}
"""Text files that lie beside labels."""

_FOLDERS = {"labels", "labeltxt"}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_YOLO = re.compile(rf"\d+(?:\.0*)?(?:\s+(?:{_NUMBER}|nan|inf)){{3,}}", re.I)
_DOTA = re.compile(rf"(?:{_NUMBER}\s+){{7,8}}[^\s\d.]\S*(?:\s+[0-3])?")
_HEADER = re.compile(r"(imagesource|gsd)\s*:", re.I)


def is_list(path: str) -> bool:
    """Whether a text file is called like one that lists classes, images or conditions."""
    return posixpath.basename(path).lower() in NOT_LABELS


def label_texts(listing: Listing) -> list[str]:
    """The text files that may be labels."""
    return [path for path in listing.of(".txt") if not is_list(path)]


def lines_of(path: Path) -> list[tuple[int, str]]:
    """Number and text of every line that says something."""
    text = read_text(path).split("\n")
    return [(number, line.strip()) for number, line in enumerate(text, 1) if line.strip()]


def kinds(listing: Listing) -> dict[str, str]:
    """Kind ("yolo", "dota", "empty") → one of the files that are of it, of a few that are opened.

    They are called like images, or else lie in a folder that is called like one of labels.
    """
    found: dict[str, str] = {}
    texts = label_texts(listing)
    likely = [path for path in texts if listing.image_index.has_stem(path)]
    if listing.images:  # without any, images and labels may lie apart
        texts = [path for path in texts if _FOLDERS & {*path.lower().split("/")[:-1]}]
    for path in sample(likely or texts):
        try:
            lines = [line for _, line in lines_of(Path(listing.path(path)))]
        except (OSError, DataError):
            continue
        objects = [line for line in lines if not _HEADER.match(line)]
        if not objects:
            if lines or likely or "labels" in path.lower().split("/"):
                found.setdefault("dota" if lines else "empty", path)
        elif _YOLO.fullmatch(objects[0]):
            found.setdefault("yolo", path)
        elif _DOTA.fullmatch(objects[0]):
            found.setdefault("dota", path)
    return found


def is_header(line: str) -> bool:
    """Whether a line is one of the two at the top of DOTA's files."""
    return _HEADER.match(line) is not None
