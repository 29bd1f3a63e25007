"""The files of a PASCAL VOC folder: which splits and classes there are, what an annotation says."""

from __future__ import annotations

import math
import os
import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jdet.data.sources.annotations import check_classes
from jdet.types import DataError, nearest

VOC_CLASSES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor".split()
)

EXTENSIONS = (".jpg", ".jpeg", ".png")

_YEAR_ITEM = re.compile(r"(?P<year>\d{4}):(?P<split>\w+)|(?P<short>0[5-9]|1[0-2])(?P<name>[a-z]*)")

# The devkit writes "%s %2d": two spaces before a 1. "frame 1" is the name of an image.
_CLASS_LIST_LINE = re.compile(r"\S+(?:\s+-1|\s{2,}[01]|\t[01])")


class VocObject(NamedTuple):
    """One ``<object>``: class name, coordinates as written (1-based, inclusive), flag."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


class VocAnnotation(NamedTuple):
    """One annotation file; ``size`` is height and width, None where the file does not say."""

    filename: str
    size: tuple[int, int] | None
    objects: list[VocObject]


class _Builder(ElementTree.TreeBuilder):
    """Builds the tree of a label file, and nothing that can expand or fetch entities."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise DataError(f"declares a document type ({name!r}); entities are not read")


def read_annotation(path: str | Path) -> VocAnnotation:
    """Reads one VOC annotation file.

    Raises:
        DataError: the file is missing, is not XML (line and column are named), declares a document
            type or entities, or lacks a class name or coordinates.
    """
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        with open(path, "rb") as file:
            root = ElementTree.fromstring(file.read(), parser)
        size = root.find("size")
        height, width = (0, 0) if size is None else (_number(size, k) for k in ("height", "width"))
        return VocAnnotation(
            filename=(root.findtext("filename") or "").strip(),
            size=(int(height), int(width)) if height > 0 and width > 0 else None,
            objects=[_read_object(node) for node in root.iterfind("object")],
        )
    except FileNotFoundError:
        raise DataError(f"annotation {path} is missing") from None
    except ElementTree.ParseError as error:
        line, column = error.position
        raise DataError(f"{path}, line {line}, column {column}: not XML: {error.msg}") from error
    except (ValueError, LookupError, OSError) as error:  # LookupError: unknown encoding
        raise DataError(f"{path}: {error}") from error


def _read_object(node: ElementTree.Element) -> VocObject:
    name = (node.findtext("name") or "").strip()
    if not name:
        raise DataError("an <object> has no <name>")
    box = node.find("bndbox")
    if box is None:
        raise DataError(f"object {name!r} has no <bndbox>")
    xmin, ymin, xmax, ymax = (_number(box, key) for key in ("xmin", "ymin", "xmax", "ymax"))
    difficult = (node.findtext("difficult") or "0").strip().lower() in ("1", "true")
    return VocObject(name, (xmin, ymin, xmax, ymax), difficult)


def _number(node: ElementTree.Element, key: str) -> float:
    text = node.findtext(key) or ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"<{node.tag}> has {key} {text!r}, which is not a number")
    return value


def parse_splits(splits: str | Sequence[str]) -> list[tuple[str, str]]:
    """Resolves a union of splits into (year, split) pairs; the year is ``""`` where none is named.

    Items are joined by ``+`` or given as a sequence:

        ``2007:trainval``   that split of VOC2007
        ``07test``          two digits for the year: the same as ``2007:test``
        ``07``              a year alone: its ``trainval``
        ``train``           that split of the only folder there is, or of ``year``

    so that ``07+12`` is VOC2007 trainval + VOC2012 trainval, as papers write it; ``07++12`` adds
    VOC2007 test: ``07+07test+12``.

    Raises:
        DataError: an empty item.
    """
    items = [splits] if isinstance(splits, str) else list(splits)
    pairs = []
    for item in "+".join(items).replace("07++12", "07+07test+12").split("+"):
        item = item.strip()
        if not item:
            raise DataError(f'splits {splits!r}: an item is empty; write "train" or "07+12"')
        match = _YEAR_ITEM.fullmatch(item)
        if match is None:
            pairs.append(("", item))
        elif match["year"]:
            pairs.append((match["year"], match["split"]))
        else:
            pairs.append((f"20{match['short']}", match["name"] or "trainval"))
    return pairs


def _is_voc_folder(folder: Path) -> bool:
    return (folder / "Annotations").is_dir() and (folder / "ImageSets" / "Main").is_dir()


def find_folder(root: str | Path, year: str, split: str) -> tuple[Path, str]:
    """The VOC folder an item of ``splits`` means; the folder and the split."""
    root = Path(root)
    if _is_voc_folder(root):
        if year and root.resolve().name != f"VOC{year}":
            raise DataError(
                f"split {year}:{split} belongs to VOC{year}, but {root} is itself a VOC folder. "
                f"Name the folder that holds VOC{year}, or a split without a year."
            )
        return root, split
    parents = (root, root / "VOCdevkit")
    if year:
        looked = [parent / f"VOC{year}" for parent in parents]
    else:
        looked = [folder for parent in parents for folder in sorted(parent.glob("VOC20??"))]
    found = [folder for folder in looked if _is_voc_folder(folder)]
    if len(found) > 1 and not year:
        names = ", ".join(folder.name for folder in found)
        raise DataError(
            f'split {split!r}: {root} holds {names}; say which, as in "{found[0].name[3:]}:{split}"'
        )
    if not found:
        places = ", ".join(dict.fromkeys(map(str, (root, *(looked or parents)))))
        raise DataError(
            f"no VOC folder{f' of {year}' if year else ''} (Annotations, ImageSets/Main and "
            f"JPEGImages) found; looked at {places}. Download VOC2007 and VOC2012 with "
            f"`python data/get_voc.py --root {root}`, or set the data set's root to your own "
            "folder of that shape (data/README.md shows it)."
        )
    return found[0], split


def read_split(folder: Path, split: str) -> list[str]:
    """Names listed in ``ImageSets/Main/<split>.txt``.

    Lists per class (``000012 -1``, as ``cat_train.txt`` of the devkit has them) give the images
    that hold the class: lines with -1 are left out.

    Raises:
        DataError: there is no such split, or it lists nothing.
    """
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        there = sorted(file.stem for file in path.parent.glob("*.txt"))
        raise DataError(
            f"{path} is missing: {folder.name} has no split {split!r}{nearest(split, there)}; "
            f"there are {', '.join(there[:20]) or 'none'}"
        )
    names = []
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        line = line.strip()
        if _CLASS_LIST_LINE.fullmatch(line):
            line = "" if line.endswith("-1") else line.split()[0]
        if line:
            names.append(line)
    if not names:
        raise DataError(f"{path} lists no images")
    return names


def list_images(folder: Path) -> dict[str, list[str]]:
    """Stem → file names in ``JPEGImages``; one listing instead of a look-up per image."""
    files = defaultdict(list)
    try:
        names = sorted(os.listdir(folder / "JPEGImages"))
    except OSError as error:
        raise DataError(f"{folder / 'JPEGImages'}: cannot list the images: {error}") from error
    for name in names:
        stem, extension = os.path.splitext(name)
        if extension.lower() in EXTENSIONS:
            files[stem].append(name)
    return files


def find_image(
    folder: Path, split: str, id: str, filename: str, files: dict[str, list[str]]
) -> str:
    """Path of the image of split entry ``id``, whose annotation says ``filename``."""
    own = files.get(id, [])
    named = files.get(os.path.splitext(filename)[0], [])
    if filename in own or (not own and filename in named):
        name = filename
    elif own:
        name = own[0]
    else:
        raise DataError(
            f"split {split!r} of {folder} names {id!r}, but JPEGImages has no image {id} "
            f"({', '.join(EXTENSIONS)})"
        )
    return str(folder / "JPEGImages" / name)


def class_names(folders: list[Path], classes: Sequence[str] | None) -> tuple[str, ...]:
    """The class list that all of the folders share, or ``classes`` where given."""
    if classes is not None:
        return check_classes(classes, "VocSource")
    lists = {folder: _folder_classes(folder) for folder in folders}
    first, *others = lists
    for other in others:
        if lists[other] != lists[first]:
            raise DataError(
                f"{first} and {other} have different classes: {', '.join(lists[first])} and "
                f"{', '.join(lists[other])}. Give the source `classes`."
            )
    return lists[first]


def _folder_classes(folder: Path) -> tuple[str, ...]:
    labels = folder / "labels.txt"
    if labels.is_file():
        lines = labels.read_text(encoding="utf-8-sig").splitlines()
        return check_classes([line.strip() for line in lines if line.strip()], str(labels))
    if re.fullmatch(r"VOC20\d\d", folder.resolve().name):
        return VOC_CLASSES
    names: set[str] = set()
    for file in sorted((folder / "Annotations").glob("*.xml")):
        try:
            names.update(item.name for item in read_annotation(file).objects)
        except DataError:
            continue  # reported, or skipped, when its split is read
    return check_classes(sorted(names), f"{folder / 'Annotations'}")
