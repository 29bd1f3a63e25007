"""The files of a PASCAL VOC folder: which splits, images and classes there are."""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from jdet.data.find_images import expanded, walk
from jdet.data.image_formats import SUFFIXES
from jdet.data.layouts.path_index import most_alike
from jdet.data.sources.annotations import check_classes
from jdet.data.sources.label_text import read_text
from jdet.data.sources.voc_annotation import read_annotation
from jdet.types import DataError, nearest

VOC_CLASSES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor".split()
)

_YEAR_ITEM = re.compile(r"(?P<year>\d{4}):(?P<split>.+)|(?P<short>0[5-9]|1[0-2])(?P<name>[a-z]*)")

# The devkit writes "%s %2d": two spaces before a 1. "frame 1" is the name of an image.
_CLASS_LIST_LINE = re.compile(r"\S+(?:\s+-1|\s{2,}[01]|\t[01])")

# SSD's Caffe code lists an image and its annotation on each line.
_PAIR_LINE = re.compile(r"(\S+)\s+\S+\.xml")

_SAMPLE = 50
"""Annotations that are looked at to tell PASCAL's own set from another one in a folder of its name."""


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


def is_voc_folder(folder: Path) -> bool:
    """Whether a folder itself has annotations and lists of images."""
    return (folder / "Annotations").is_dir() and any(lists_folder(folder).glob("*.txt"))


def lists_folder(folder: Path) -> Path:
    """Where the lists of images of a VOC folder are: ``ImageSets/Main``, or ``ImageSets`` where it has
    some.
    """
    above = folder / "ImageSets"
    return above if not (above / "Main").is_dir() and any(above.glob("*.txt")) else above / "Main"


def voc_folders(root: Path) -> list[Path]:
    """The VOC folders that a root stands for.

    Itself; or those of the years in it or in its ``VOCdevkit``; or else others of the shape there.
    """
    if is_voc_folder(root):
        return [root]
    parents = [parent for parent in (root, root / "VOCdevkit") if parent.is_dir()]
    for pattern in ("VOC20??", "*"):
        folders = [folder for parent in parents for folder in sorted(parent.glob(pattern))]
        if found := [folder for folder in folders if is_voc_folder(folder)]:
            return found
    return []


def is_flat(folder: Path) -> bool:
    """Whether there are XML files without lists, in ``Annotations`` or anywhere below."""
    if is_voc_folder(folder):
        return False
    return any(name.lower().endswith(".xml") for _, _, names in walk(folder) for name in names)


def find_folder(root: str | Path, year: str, split: str) -> tuple[Path, str]:
    """The VOC folder an item of ``splits`` means; the folder and the split."""
    root = expanded(root)
    if is_voc_folder(root):
        if year and root.resolve().name != f"VOC{year}":
            raise DataError(
                f"split {year}:{split} belongs to VOC{year}, but {root} is itself a VOC folder. "
                f"Name the folder that holds VOC{year}, or a split without a year."
            )
        return root, split
    parents = (root, root / "VOCdevkit")
    looked = [parent / f"VOC{year}" for parent in parents] if year else parents
    found = [f for f in looked if is_voc_folder(f)] if year else voc_folders(root)
    if not found and not year and is_flat(root):
        return root, split
    if len(found) > 1 and not year:
        names = ", ".join(folder.name for folder in found)
        which = f'say which, as in "{found[0].name[3:]}:{split}"'
        if not found[0].name.startswith("VOC20"):
            which = f"name one of them, such as {found[0]}, as the data set's root"
        raise DataError(f"split {split!r}: {root} holds {names}; {which}")
    if not found:
        missing = "" if root.exists() else f"{root} does not exist: "
        places = ", ".join(dict.fromkeys(map(str, (root, *looked))))
        raise DataError(
            f"{missing}no VOC folder{f' of {year}' if year else ''} (Annotations, ImageSets/Main and "
            f"JPEGImages) found; looked at {places}. Download VOC2007 and VOC2012 with "
            f"`python data/get_voc.py --root {shlex.quote(str(root))}`, or set the data set's root to your "
            "own folder of that shape (data/README.md shows it)."
        )
    return found[0], split


def read_split(folder: Path, split: str) -> list[str]:
    """Names listed in ``ImageSets/Main/<split>.txt``.

    Lists per class (``000012 -1``, as ``cat_train.txt`` of the devkit has them) give the images
    that hold the class: lines with -1 are left out.

    Raises:
        DataError: there is no such split, or it lists nothing.
    """
    path = lists_folder(folder) / f"{split}.txt"
    if not path.is_file():
        there = sorted(file.stem for file in path.parent.glob("*.txt"))
        raise DataError(
            f"{path} is missing: {folder.name} has no split {split!r}{nearest(split, there)}; "
            f"there are {', '.join(there[:20]) or 'none'}"
        )
    names = []
    for line in read_text(path).split("\n"):
        line = line.strip()
        if _CLASS_LIST_LINE.fullmatch(line):
            line = "" if line.endswith("-1") else line.split()[0]
        elif pair := _PAIR_LINE.fullmatch(line):
            line = pair[1]
        if line:
            names.append(unicodedata.normalize("NFC", line))
    if not names:
        raise DataError(f"{path} lists no images")
    return names


def flat_split(folder: Path, split: str, annotations: Files) -> list[str]:
    """Names of all images with an annotation in a sub-folder; of all there are for the split ``.``.

    Raises:
        DataError: there are none.
    """
    names = [name for name in annotations if split == "." or name.startswith(f"{split}/")]
    if not names:
        there = sorted({name.split("/")[0] for name in annotations if "/" in name})
        raise DataError(
            f"{folder} has no XML files in a folder {split!r}{nearest(split, there)}; there are "
            f"{', '.join(there[:20]) or 'none'}, and '.' is all of them"
        )
    return names


class Files:
    """The files below a folder by name without extension; one listing instead of a look-up per file.

    Names of files in sub-folders have these with forward slashes. They are composed (NFC), as lists have
    them, whatever the file system has.
    """

    def __init__(self, folder: Path, extensions: Sequence[str]):
        """Lists the folder.

        Raises:
            DataError: it is not there or cannot be read.
        """
        self.folder = folder
        self._paths: dict[str, list[str]] = defaultdict(list)
        self._last: dict[str, list[str]] = defaultdict(list)  # without folders → with them
        try:
            os.listdir(folder)
        except OSError as error:
            what = "images" if ".jpg" in extensions else "annotations"
            raise DataError(f"{folder}: cannot list the {what}: {error}") from error
        for place, _, names in walk(folder):
            below = os.path.relpath(place, folder).replace(os.sep, "/")
            for name in names:
                path = name if below == "." else f"{below}/{name}"
                if os.path.splitext(name)[1].lower() in extensions:
                    key = unicodedata.normalize("NFC", os.path.splitext(path)[0])
                    if key not in self._paths:
                        self._last[posixpath.basename(key)].append(key)
                    self._paths[key].append(path)

    def __contains__(self, key: str) -> bool:
        return key in self._paths

    def __iter__(self):
        return iter(sorted(self._paths))

    def __getitem__(self, key: str) -> list[str]:
        """Paths of all files of this name below the folder, sorted; empty for none."""
        return self._paths.get(key, [])

    def only(self, key: str) -> str:
        """The one file in any sub-folder that is called so, with its folders; "" for none or several.

        Of several it is the one whose folders are most like those of ``key``.
        """
        found = self._last.get(posixpath.basename(key), [])
        found = most_alike(found, posixpath.dirname(key))
        return found[0] if len(found) == 1 else ""


def image_files(folder: Path) -> Files:
    """What ``JPEGImages`` holds, or ``images`` as Label Studio has it; without both, all images below.

    Raises:
        DataError: a folder with lists has neither.
    """
    names = ("JPEGImages", "images")
    found = [name for name in names if (folder / name).is_dir()]
    beside = not (folder / "Annotations").is_dir() or not found
    if beside and is_flat(folder):
        return Files(folder, SUFFIXES)
    return Files(folder / (found or names)[0], SUFFIXES)


def annotation_files(folder: Path) -> Files:
    """What ``Annotations`` holds; without it, all XML files below."""
    beside = not (folder / "Annotations").is_dir()
    return Files(folder if beside else folder / "Annotations", (".xml",))


def entry_id(entry: str, annotations: Files, images: Files) -> str:
    r"""The name of an image that a line of a list means.

    That is the line, or it without the extension of an image or annotation, without leading folders, with
    slashes for backslashes: the first that names a file. ``p1``, ``p1.jpg``, ``JPEGImages/p1.jpg`` and
    ``C:\set\p1.jpg`` are all ``p1``.
    """
    parts = entry.replace("\\", "/").split("/")
    tail = ""
    for first in range(len(parts)):
        tail = "/".join(parts[first:])
        for name in (tail, _without_extension(tail)):
            if name in annotations or name in images:
                return name
    return annotations.only(_without_extension(tail)) or _without_extension("/".join(parts))


def _without_extension(name: str) -> str:
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in (*SUFFIXES, ".xml") else name


def find_image(folder: Path, split: str, id: str, filename: str, files: Files) -> str:
    """Path of the image of split entry ``id``, whose annotation says ``filename``."""
    filename = unicodedata.normalize("NFC", posixpath.basename(filename.replace("\\", "/")))
    named = files[os.path.splitext(filename)[0]]
    own = files[id] or ([] if named else files[files.only(id)])
    if not own and not named:
        raise DataError(
            f"split {split!r} of {folder} names {id!r}, but {files.folder} has no image {id} "
            f"({', '.join(SUFFIXES)})"
        )
    found = own or named
    exact = [path for path in found if posixpath.basename(path) == filename]
    return str(files.folder / (exact or found)[0])


def find_parts(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Paths of the files of an image.

    Raises:
        DataError: one is missing.
    """
    for name in names:
        if not (folder / name).is_file():
            raise DataError(
                f"{folder / name} is missing, of the files of an image by config.data.image.files "
                f"({', '.join(names)})"
            )
    return tuple(str(folder / name) for name in names)


def class_names(folders: Mapping[Path, Files], classes: Sequence[str] | None) -> tuple[str, ...]:
    """The class list that all of the folders share, or ``classes`` where given.

    Args:
        folders: with their annotations.
        classes: names, or None.
    """
    if classes is not None:
        return check_classes(classes, "VocSource")
    lists = {folder: _folder_classes(folder, files) for folder, files in folders.items()}
    first, *others = lists
    for other in others:
        if lists[other] != lists[first]:
            raise DataError(
                f"{first} and {other} have different classes: {', '.join(lists[first])} and "
                f"{', '.join(lists[other])}. Name all classes: "
                "classes=a+b of the experiments on your own images, elsewhere "
                "--config.data.train.classes and --config.data.eval.classes."
            )
    return lists[first]


def _folder_classes(folder: Path, annotations: Files) -> tuple[str, ...]:
    labels = folder / "labels.txt"
    if labels.is_file():
        lines = read_text(labels).split("\n")
        return check_classes([line.strip() for line in lines if line.strip()], str(labels))
    keys = list(annotations)
    if re.fullmatch(r"VOC20\d\d", folder.resolve().name):
        sample = keys[:: max(1, len(keys) // _SAMPLE)]
        if _names(annotations, sample) <= set(VOC_CLASSES):
            return VOC_CLASSES
    return check_classes(sorted(_names(annotations, keys)), f"{folder / 'Annotations'}")


def _names(annotations: Files, keys: Sequence[str]) -> set[str]:
    names: set[str] = set()
    for key in keys:
        try:
            found = read_annotation(annotations.folder / annotations[key][0]).objects
        except DataError:
            continue  # reported, or skipped, when its split is read
        names.update(item.name for item in found)
    return names
