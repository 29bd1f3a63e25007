"""Folders of PASCAL VOC's files: what to train and what to evaluate on."""

from __future__ import annotations

import posixpath
import re
import shlex
from pathlib import Path

from jdet.data.layouts.words import ALL, SPLITS, pair_of, split_of
from jdet.data.sources.voc_files import annotation_files, lists_folder, voc_folders
from jdet.types import DataError

YEAR = re.compile(r"VOC20\d\d")
"""What the folders of PASCAL's development kit are called."""

VOC_PAIRS = (("trainval", "test"), ("train", "test"), ("train", "val"), ("trainval",), ("train",))
"""Splits of lists to train and to evaluate on, the preferred ones first."""


def voc_sides(root: Path) -> tuple[str, str | None]:
    """What to train and to evaluate on in a folder of VOC's files."""
    folders = voc_folders(root)
    if not folders:
        return _flat_pair(root)
    return _voc_pair(folders) if len(folders) == 1 else _voc_years(folders)


def has_lists(root: Path) -> bool:
    """Whether a folder is one of VOC's with lists of images, or holds those of its years."""
    folders = voc_folders(root)
    return bool(folders) and all(f == root or YEAR.fullmatch(f.name) for f in folders)


def voc_splits(folder: Path) -> dict[str, str]:
    """Split (the list itself where it names none) → list in ``ImageSets/Main``.

    Lists per class, such as ``cat_train`` beside ``train``, are left out.
    """
    stems = sorted(path.stem for path in lists_folder(folder).glob("*.txt"))
    found: dict[str, str] = {}
    for stem in sorted(stems, key=lambda stem: (stem not in SPLITS, stem)):
        if not any(stem.endswith(f"_{other}") for other in stems):
            found.setdefault(split_of(Path(f"{stem}.txt")) or stem, stem)
    return found


def _voc_pair(folders: list[Path]) -> tuple[str, str | None]:
    """The lists of the only folder to train and to evaluate on."""
    (folder,) = folders
    splits = voc_splits(folder)
    pair = next((pair for pair in VOC_PAIRS if splits.keys() >= set(pair)), None)
    if len(splits) == 1:
        pair = tuple(splits)
    if pair is None:
        lists = lists_folder(folder)
        held = f"; of {', '.join(splits.values())}, rename one" if splits else ""
        raise DataError(
            f"{lists} has no train.txt or trainval.txt{held}; list the images there, all of them with "
            f"`cd {shlex.quote(str(folder.absolute()))} && mkdir -p ImageSets/Main && ls Annotations > "
            "ImageSets/Main/train.txt`"
        )
    return splits[pair[0]], splits[pair[1]] if len(pair) == 2 else None


def _flat_sides(root: Path) -> dict[str, str]:
    """Split → sub-folders of files without lists, joined by +; empty where some are in no folder."""
    folders = {posixpath.dirname(name) for name in annotation_files(root)}
    if "" in folders:
        return {}
    splits: dict[str, dict[str, None]] = {}
    for folder in sorted(folders):
        if split := split_of(folder):
            parts = folder.split("/")
            last = max(place for place, part in enumerate(parts) if split_of(part) == split)
            splits.setdefault(split, {})["/".join(parts[: last + 1])] = None
    return {split: "+".join(places) for split, places in splits.items()}


def _flat_pair(root: Path) -> tuple[str, str | None]:
    """The sub-folders to train and to evaluate on; all of them where their names do not speak of splits."""
    splits = _flat_sides(root)
    pair = pair_of(splits)
    if pair is None:
        return ALL, None
    return splits[pair[0]], splits[pair[1]] if len(pair) == 2 else None


def every_side(root: Path) -> dict[str, str]:
    """Every split of a folder of VOC's files → what ``VocSource`` calls it."""
    folders = voc_folders(root)
    if not folders:
        return _flat_sides(root) or {"": ALL}
    if len(folders) == 1:
        return voc_splits(folders[0])
    return {
        f"{name}_{folder.name}": f"{folder.name[3:]}:{side}"
        for folder in folders
        for name, side in voc_splits(folder).items()
    }


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
