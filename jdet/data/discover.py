"""What a folder of labelled images holds: its layout and its splits.

A folder of VOC shape has ``Annotations/`` and lists of images in ``ImageSets/Main/*.txt``, itself or in one
below it, such as ``VOCdevkit/VOC2007``; or it has XML files without lists. A folder of COCO shape has
JSON files with boxes anywhere below it. The other layouts are those of ``jdet.data.layouts``. The names
of lists and files, or their folders, speak of their splits as words: ``instances_train2017.json``,
``valid/_annotations.coco.json``, ``labels/val``.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from absl import logging

from jdet.data.find_images import expanded
from jdet.data.layouts import known, unlabelled
from jdet.data.layouts.coco_files import annotation_files
from jdet.data.layouts.listing import Listing
from jdet.data.layouts.nearest import what_is_missing, what_is_there
from jdet.data.layouts.voc_sides import every_side, has_lists, voc_sides
from jdet.data.layouts.words import ALL, SPLITS, pair_of
from jdet.data.sources.voc_files import voc_folders
from jdet.data.sources.xml_file import root_tag
from jdet.types import ConfigError, DataError, nearest


class Found(NamedTuple):
    """What a folder holds.

    Attributes:
        shape: the layout, one of ``known.NAMES``, which is the name of its source too.
        train: what to train on: a VOC split or union of splits; a COCO annotation file, its path below
            the folder; or the split of another layout, "." for all images.
        evaluation: what to evaluate on, likewise; None where there is one split alone.
    """

    shape: str
    train: str
    evaluation: str | None


def discover(folder: str | os.PathLike[str], layout: str = "") -> Found:
    """Finds out what a folder holds.

    Of a data set without a split of its own for evaluation (``evaluation`` None), a part of the training
    images can be held out (``jdet.data.sources.holdout``). An annotation file or list that names no split
    is taken only where it is the only one. What is left out although it might be meant is told.

    VOC folders with lists, COCO files, and VOC's files without lists go in this order before what else lies
    beside them, which is told too; of two other layouts in one folder none is guessed.

    Args:
        folder: where to look; ``~`` is the home folder.
        layout: one of ``known.NAMES``, to look for that alone; "" for any.

    Raises:
        DataError: the folder is missing, is of no layout, or of several; its images have no labels; or its
            files name no split to train on.
        ConfigError: there is no such layout.
    """
    listing = _listing(folder)
    shape, splits = recognise(listing, layout)
    if shape == "voc":
        return Found("voc", *voc_sides(listing.root))
    if shape == "images":
        raise DataError(
            f"{listing.root} holds {len(listing.images)} images and no labels: there is nothing "
            "to train on. For prediction: `python -m jdet.predict --workdir=RUN "
            f"--images={shlex.quote(str(listing.root))} --out=found`{_labels_above(listing.root)}"
        )
    pair = tuple(splits) if len(splits) == 1 else pair_of(splits)
    if pair is None:
        raise DataError(_no_pair(listing.root, shape, splits))
    for split in splits.keys() - set(pair) - SPLITS.keys():
        logging.warning(
            "%s is not used: neither its name nor its folder says 'train', 'val' or 'test'",
            splits[split] or split,
        )
    sides = [splits[split] if shape == "coco" else split or ALL for split in pair]
    return Found(shape, sides[0], sides[1] if len(sides) == 2 else None)


def all_splits(folder: str | os.PathLike[str], layout: str = "") -> tuple[str, dict[str, str]]:
    """The layout of a folder, and every split with what ``Found`` says of one.

    Raises:
        DataError: as ``discover``, but for images without labels and splits that nothing names.
        ConfigError: likewise.
    """
    listing = _listing(folder)
    shape, splits = recognise(listing, layout)
    if shape == "coco":
        return shape, splits
    if shape != "voc":
        return shape, {split: split or ALL for split in splits}
    return shape, every_side(listing.root)


def _labels_above(root: Path) -> str:
    """What to do where a file beside a folder of images may hold their labels."""
    kinds = {".json", ".xml", ".csv", ".yaml", ".yml"}
    with contextlib.suppress(OSError):
        for path in sorted(root.parent.iterdir()):
            if path.suffix.lower() in kinds and path.is_file():
                return f". If {path} has their labels, name the folder of both, root={root.parent}"
    return ""


def _listing(folder: str | os.PathLike[str]) -> Listing:
    root = expanded(folder)
    if not root.is_dir():
        what = "is no folder" if root.exists() else "is missing"
        raise DataError(f"the folder of labelled images {root.absolute()} {what}")
    return Listing(root)


def recognise(listing: Listing, layout: str = "") -> tuple[str, dict[str, str]]:
    """The name of a folder's layout, and its splits, each with a file that says so; of VOC none.

    Args:
        listing: of the folder.
        layout: one of ``known.NAMES``, to look for that alone; "" for any.

    Raises:
        DataError: it is of none, or of several.
        ConfigError: there is no such layout.
    """
    if layout and layout not in known.NAMES:
        raise ConfigError(
            f"layout={layout} does not exist{nearest(layout, known.NAMES)}; there are "
            f"{', '.join(known.NAMES)}"
        )
    root = listing.root
    folders = voc_folders(root)
    first: dict[str, dict[str, str]] = {}
    if layout == "coco" or (not layout and not has_lists(root)):
        if files := annotation_files(root, listing):
            first["coco"] = files
    flat = layout in ("", "voc") and not folders and _flat_xml(listing)
    if layout in ("", "voc") and (folders or flat) and not first:
        first["voc"] = {}
    others: dict[str, dict[str, str]] = {}
    for name, module in known.LAYOUTS.items():
        if layout in ("", name) and (splits := _found(module, listing, bool(first))):
            others[name] = splits
    if flat and "voc" not in first:
        others["voc"] = {}
    if layout == known.IMAGES or (not layout and not first and not others and listing.images):
        if layout or not (missing := what_is_missing(listing)):
            return known.IMAGES, unlabelled.find(listing)
        raise DataError(_none(listing, "", missing))
    found = first or others
    if not found:
        raise DataError(_none(listing, layout, what_is_missing(listing)))
    if len(found) > 1:
        choices = " or ".join(f"layout={name}" for name in found)
        raise DataError(
            f"{root} holds labels of {len(found)} layouts: {_listed(found)}. Say which: {choices} "
            "of the experiments on your own images, or move the others elsewhere"
        )
    for name, splits in others.items() if first else ():
        logging.warning(
            "Labels of another layout are not used: %s. Say layout=%s for these",
            _listed({name: splits}),
            name,
        )
    ((name, splits),) = found.items()
    return name, splits


def _found(module: ModuleType, listing: Listing, lenient: bool) -> dict[str, str]:
    """The splits of a layout; where what it finds is only told, errors do not count."""
    try:
        return module.find(listing)
    except DataError:
        if lenient:
            return {}
        raise


def _listed(found: dict[str, dict[str, str]]) -> str:
    return ", ".join(
        f"{name} ({next(iter(splits.values()), 'XML files')})" for name, splits in found.items()
    )


def _none(listing: Listing, layout: str, missing: str) -> str:
    """What a folder holds in which no labels were found, and what it lacks."""
    wanted = f"labels of layout={layout}" if layout else "labels of any layout"
    form = f"; {layout} has {known.FORMS[layout]}" if layout else ""
    return (
        f"{listing.root} holds {what_is_there(listing)}, and no {wanted} that is read "
        f"({', '.join(known.NAMES[:-1])}){form}{missing and f'. {missing}'}"
    )


def _no_pair(root: Path, shape: str, splits: dict[str, str]) -> str:
    """What is wrong with labels of which none are said to be for training."""
    if shape == "coco":
        return (
            f"{root} is of COCO shape, but of its annotation files "
            f"({', '.join(sorted(splits.values()))}) none has "
            "'train' as a word in its name or folder; write 'train' and 'val' as words into their names"
        )
    without = splits.get("", "")
    also = f", and others, such as {without}, of none" if without else ""
    return (
        f"{root} is of the layout {shape}, and its labels are of the splits "
        f"{', '.join(filter(None, splits))}{also}; "
        "none is 'train': put those to train on into a folder called train"
    )


def _flat_xml(listing: Listing) -> bool:
    """Whether there are VOC's XML files without lists of images."""
    return bool(listing.likely(".xml", lambda path: root_tag(path) == "annotation"))
