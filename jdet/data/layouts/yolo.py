"""YOLO: a text file for every image, a line for every object, coordinates relative to the image."""

from __future__ import annotations

import functools
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from absl import logging

from jdet.data.layouts import label_lines
from jdet.data.layouts.arguments import given
from jdet.data.layouts.listing import Listing
from jdet.data.layouts.path_index import PathIndex, stem_of
from jdet.data.layouts.records import ImageRecord, RawObject, attempt, hull, numbers
from jdet.data.layouts.source import Folder, FolderSource, class_list
from jdet.data.layouts.words import SPLITS, by_folder, split_of, split_of_folder
from jdet.data.layouts.yolo_yaml import DataYaml, find_yaml, listed, locate, read_yaml
from jdet.types import DataError

TITLE = "YOLO"
FORM = "data.yaml, or images/ and labels/*.txt"

_NO_LABELS = "images without a label file, which have no objects"
_SLACK = 0.01
"""How far a relative coordinate may lie outside 0 … 1 by rounding."""


def find(listing: Listing) -> dict[str, str]:
    """Splits of a folder of YOLO's layout → what says so; empty where it is none.

    Raises:
        DataError: its ``data.yaml`` cannot be read.
    """
    if path := find_yaml(listing):
        data = read_yaml(path)
        found = {split: path.name for split in data.places if _is_there(data, split)}
        return found or {"": path.name}
    kinds = label_lines.kinds(listing)
    first = kinds.get("yolo") or kinds.get("empty")
    if not first or ("yolo" not in kinds and "dota" in kinds):
        return {}
    if lists := _lists(listing):
        return lists
    files = by_folder(listing.images or label_lines.label_texts(listing))
    return dict.fromkeys(files, first)


def _is_there(data: DataYaml, split: str) -> bool:
    """Whether a split is to be used; test images are often listed and not there."""
    try:
        return bool(locate(data, split))
    except DataError:
        return split != "test"


def _lists(listing: Listing) -> dict[str, str]:
    """Split → text file high up that lists its images, as Darknet has them."""
    found: dict[str, str] = {}
    for name in listing.of(".txt"):
        split = split_of(posixpath.basename(name))
        if split and name.count("/") < 2 and posixpath.splitext(name)[0].lower() in _STEMS:
            if listed(Path(listing.path(name))):
                found.setdefault(split, name)
    return found if "train" in found or "trainval" in found else {}


_STEMS = {name for names in SPLITS.values() for name in names}


class _Image(NamedTuple):
    """An image, below its folder; and its labels, "" where there are none."""

    split: str
    image: str
    label: str


class YoloSource(FolderSource):
    """Images with YOLO's text files: ``class x y width height``, or ``class x y x y …`` for a polygon.

    Coordinates are relative to the image, the box's are those of its centre. Of every image the labels
    are in the folder ``labels`` beside its folder ``images``, or beside the image; one without has no
    objects. Four corners, as of turned boxes, are a polygon; behind a box of five or six fields may stand
    keypoints where ``data.yaml`` has ``kpt_shape``.

    Classes are those of ``data.yaml``, ``classes.txt`` or ``obj.names``; else they are called 0, 1, ….
    """

    title = TITLE
    conventions = ("relative", "edges")

    def _records(self, folder: Folder) -> Iterable[ImageRecord]:
        path = find_yaml(folder.labels)
        self._yaml = read_yaml(path) if path else None
        self._names = self._yaml.names if self._yaml else {}
        if not self._names:
            self._names = dict(enumerate(_class_list(folder.labels) or self._given or ()))
        self._used: set[int] = set()
        self._seen = folder.seen
        apart = folder.images is not folder.labels or not folder.labels.images
        if apart or self.image_settings.files:
            yield from self._apart(folder)
        elif self._yaml and self._yaml.places:
            yield from self._by_yaml(folder, self._yaml)
        else:
            lists = _lists(folder.labels)
            yield from self._by_lists(folder, lists) if lists else self._by_folders(folder)

    def _class_list(self, folder: Folder) -> tuple[str, ...]:
        if self._names:
            return tuple(self._names.values())
        names = tuple(str(id) for id in range(max(self._used, default=0) + 1))
        logging.warning(
            "%s: no data.yaml, classes.txt or obj.names names the classes; they are called %s",
            folder.labels.root,
            ", ".join(names[:10]),
        )
        return names

    def _by_yaml(self, folder: Folder, data: DataYaml) -> Iterator[ImageRecord]:
        for split in data.places:
            try:
                yield from self._of_split(folder, data, split)
            except DataError as error:  # a data.yaml may list a test set that is not there
                yield ImageRecord(str(data.path), split=split, error=error)

    def _of_split(self, folder: Folder, data: DataYaml, split: str) -> Iterator[ImageRecord]:
        for place in locate(data, split):
            if place.is_file():
                yield from self._of_list(_around(place, folder), place, split)
                continue
            listing, below = _within(place, folder)
            images = [path for path in listing.images if f"/{path}".startswith(below)]
            if not images:
                raise DataError(
                    f"{data.path}: {split} is {place}, which holds no images; correct it, or "
                    f"leave {split} out"
                )
            yield from self._of(listing, [(split, image) for image in images])

    def _by_lists(self, folder: Folder, lists: Mapping[str, str]) -> Iterator[ImageRecord]:
        for split, name in lists.items():
            yield from self._of_list(folder.images, Path(folder.labels.path(name)), split)

    def _of_list(self, listing: Listing, path: Path, split: str) -> Iterator[ImageRecord]:
        labels = _Labels(listing)
        names = listed(path)
        if not names:
            raise DataError(f"{path}: it lists no images, one on a line")
        near = os.path.relpath(path.parent, listing.root).replace(os.sep, "/")
        for name in names:

            def read(name: str = name) -> ImageRecord:
                image = listing.image_index.find(
                    name, "" if near == "." else near, split, only=True
                )
                if not image:
                    raise DataError(f"its image {name!r} is nowhere below {listing.root}")
                self._seen.add(listing.path(image))
                return self._read(listing, split, image, labels.of(image))

            yield attempt(str(path), split, read)

    def _by_folders(self, folder: Folder) -> Iterator[ImageRecord]:
        images = folder.labels.images
        yield from self._of(folder.labels, [(split_of_folder(image), image) for image in images])

    def _apart(self, folder: Folder) -> Iterator[ImageRecord]:
        """Images in a folder elsewhere, or of several files, found by the names of the labels."""
        splits: set[str] = set()
        for label in label_lines.label_texts(folder.labels):
            split = split_of_folder(label)
            splits.add(split)

            def read(label: str = label, split: str = split) -> ImageRecord:
                image = folder.image(stem_of(posixpath.basename(label)), label)
                return self._parsed(folder.labels, split, image, label)

            yield attempt(folder.labels.path(label), split, read)
        for files in folder.unseen():
            split = split_of_folder(files[0]) if splits != {""} else ""
            if split in splits:
                where = folder.images.path(files[0])
                yield attempt(where, split, functools.partial(self._empty, folder, split, files))

    def _empty(self, folder: Folder, split: str, files: tuple[str, ...]) -> ImageRecord:
        """An image without a label file."""
        paths = tuple(map(folder.images.path, files))
        self._seen.update(paths)
        for file, path in zip(files, paths, strict=True):
            if not folder.images.image_index.written(file, ""):
                raise DataError(f"{path} is missing, one of the files of the image")
        self.notes[_NO_LABELS] += 1
        return ImageRecord(paths[0], paths if len(paths) > 1 else paths[0], split)

    def _of(self, listing: Listing, images: Iterable[tuple[str, str]]) -> Iterator[ImageRecord]:
        """Records of images, and of the labels in the same folders that are of none of them."""
        labels = _Labels(listing)
        seen: set[str] = set()
        folders: dict[str, str] = {}
        for split, image in images:
            label = labels.of(image)
            if label:
                seen.add(label)
            folders.setdefault(posixpath.dirname(label or _by_rule(image)), split)
            where = listing.path(label or image)
            self._seen.add(listing.path(image))
            yield attempt(where, split, functools.partial(self._read, listing, split, image, label))
        for label in sorted(labels.files - seen):
            split = folders.get(posixpath.dirname(label))
            if split is None:
                continue
            path = listing.path(label)
            error = DataError(
                f"{path}: there is no image {stem_of(posixpath.basename(label))}.* for it below "
                f"{listing.root}; "
                "put it there, or delete the file"
            )
            yield ImageRecord(path, split=split, error=error)

    def _read(self, listing: Listing, split: str, image: str, label: str) -> ImageRecord:
        path = listing.path(image)
        if not label:
            self.notes[_NO_LABELS] += 1
            return ImageRecord(path, path, split)
        return self._parsed(listing, split, path, label)

    def _parsed(
        self, listing: Listing, split: str, image: str | tuple[str, ...], label: str
    ) -> ImageRecord:
        path = listing.path(label)
        lines = label_lines.lines_of(Path(path))
        objects = tuple(self._line(line, f"{path}, line {number}") for number, line in lines)
        return ImageRecord(path, image, split, objects)

    def _line(self, line: str, where: str) -> RawObject:
        first, *rest = line.split()
        (number,) = numbers([first], f"{where}: the class")
        id = int(number)
        if id != number or id < 0:
            raise DataError(f"{where}: the class is {first}; expected a whole number from 0 on")
        if self._names and id not in self._names:
            known = ", ".join(f"{key} {name}" for key, name in list(self._names.items())[:20])
            source = self._yaml.path if self._yaml and self._yaml.names else "the list of classes"
            raise DataError(
                f"{where}: the class is {id}, and there are {known}; correct the line, or add the "
                "class to the "
                f"names in {source}"
            )
        values = numbers(rest, where)
        keypoints = self._yaml is not None and self._yaml.keypoints
        if keypoints and len(values) > 4:
            values = values[:4]
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise DataError(
                f"{where}: {len(values)} coordinates follow the class; a box has 4, x y width "
                "height, a polygon two "
                "for each of three points or more"
                + "; leave out the confidence"
                * (len(values) == 5)
            )
        if self._convention == "relative":
            for value in values:
                if not -_SLACK <= value <= 1 + _SLACK:
                    raise DataError(
                        f"{where}: the coordinate {value:g} is not in 0 … 1 of the image; where these are "
                        f"pixels, say how they count: {given('coordinates', 'edges')}"
                    )
        self._used.add(id)
        name = self._names.get(id, str(id))
        if len(values) == 4:
            x, y, width, height = values
            return RawObject(name, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))
        return RawObject(name, hull([values]), [values])


def _class_list(listing: Listing) -> tuple[str, ...]:
    if found := class_list(listing, anywhere=True):
        return found
    for name in listing.of(".names"):
        lines = (line for _, line in label_lines.lines_of(Path(listing.path(name))))
        return tuple(lines)
    return ()


def _by_rule(image: str) -> str:
    """``train/images/a.jpg`` → ``train/labels/a.txt``, the last folder of that name."""
    head, found, tail = f"/{image}".rpartition("/images/")
    return stem_of(f"{head}/labels/{tail}"[1:] if found else image) + ".txt"


def _beside(image: str) -> str:
    return stem_of(image) + ".txt"


class _Labels:
    """The label files of a folder, by image.

    Attributes:
        files: all of them.
    """

    def __init__(self, listing: Listing):
        self.files = set(label_lines.label_texts(listing))
        placed = {path for image in listing.images for path in (_by_rule(image), _beside(image))}
        self._others = PathIndex(self.files - placed)
        self._places = {posixpath.dirname(path) for path in placed}

    def of(self, image: str) -> str:
        """The label file of an image; "" where it has none.

        Where none is in its place, one of its name is meant that is not in the place of another image, nor
        in a folder for the labels of images in another folder.
        """
        by_rule, beside = _by_rule(image), _beside(image)
        for path in (by_rule, beside):
            if path in self.files:
                return path
        own = posixpath.dirname(by_rule)
        found = self._others.find(posixpath.basename(beside), own)
        folder = posixpath.dirname(found)
        near = any(f"{one}/".startswith(f"{two}/") for one, two in ((own, folder), (folder, own)))
        return "" if folder in self._places and folder and own and not near else found


def _within(place: Path, folder: Folder) -> tuple[Listing, str]:
    """A listing that has the labels of the images of a folder too; and where in it that folder is."""
    root = folder.labels.root.resolve()
    place = place.resolve()
    if place == root or root in place.parents:
        below = os.path.relpath(place, root).replace(os.sep, "/")
        return folder.labels, "/" if below == "." else f"/{below}/"
    if "images" not in place.parts:
        return Listing(place), "/"
    top = next(one for one in (place, *place.parents) if one.name == "images").parent
    return Listing(top), f"/{place.relative_to(top).as_posix()}/"


def _around(path: Path, folder: Folder) -> Listing:
    """The listing in which the images of a list are looked for."""
    root = folder.labels.root.resolve()
    return folder.images if root in path.resolve().parents else Listing(path.parent)
