"""Annotation files of COCO's form below a folder, and their splits."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

from absl import logging

from jdet.data.image_formats import LFS_POINTER
from jdet.data.layouts.listing import Listing, sample
from jdet.data.layouts.words import split_of, words
from jdet.data.sources.label_text import decode
from jdet.types import DataError

OTHER_TASKS = {"captions", "keypoints", "panoptic"}
"""Words of files that label the same images for something else than detection."""


def annotation_files(root: Path, listing: Listing | None = None) -> dict[str, str]:
    """Split (the path itself where it names none) → annotation file with boxes, below ``root``.

    Of several for a split, one with ``instances`` in its name goes first, then one higher up. A file that
    names a split and is not used is told.

    Args:
        root: the folder.
        listing: what is below it, where that is listed already.
    """
    listing = listing or Listing(root)
    found: dict[str, str] = {}
    unused: dict[Path, str] = {}
    single = listing.single(".json")
    some = sample(single)
    each = any(is_detection_file(root / path) for path in some)
    names = set(listing.of(".json")) - (set() if each else set(single))
    paths = [Path(name) for name in names]
    for path in sorted(paths, key=lambda p: ("instances" not in words(p.name), len(p.parts), p)):
        split = split_of(path)
        if OTHER_TASKS & words(path.name):
            continue
        if not is_detection_file(root / path):
            reason = "it holds no boxes in COCO's form"
        elif split in found:
            reason = f"{found[split]} is the file of {split!r}"
        else:
            found[split or path.as_posix()] = path.as_posix()
            continue
        if split:
            unused[path] = reason
    for path, reason in unused.items() if found else ():
        logging.warning("%s is not used: %s", root / path, reason)
    return found


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
