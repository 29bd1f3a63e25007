"""The source behind every layout of label files that is neither VOC's nor COCO's."""

from __future__ import annotations

import abc
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from jdet.data.find_images import expanded
from jdet.data.layouts.arguments import given
from jdet.data.layouts.listing import Listing
from jdet.data.layouts.path_index import stem_of
from jdet.data.layouts.records import ImageRecord, RawObject
from jdet.data.layouts.words import ALL, split_of
from jdet.data.readers.file_pattern import FilePattern
from jdet.data.readers.settings import USUAL, ImageSettings
from jdet.data.sources.annotations import (
    LabelBuilder,
    Object,
    check_classes,
    check_on_error,
    read_image_size,
    unknown_class,
)
from jdet.data.sources.label_masks import LabelMasks
from jdet.data.sources.label_text import read_text
from jdet.data.sources.labelled import LabelledSource
from jdet.types import DataError, nearest, require

CONVENTIONS = {
    "edges": (0.0, 0.0),
    "from_0": (0.0, 1.0),
    "from_1": (-1.0, 0.0),
    "relative": (0.0, 0.0),
}
"""How boxes count: what is added to the first and to the last coordinates to make them continuous pixels.
``relative`` ones, 0 … 1 of the image's sides, are multiplied by these."""

CLASS_LISTS = ("labels.txt", "classes.txt")
"""Files in a folder that list its classes, one on a line."""


class Folder:
    """The label files and the images of a data set, which may lie apart.

    Args:
        root: folder of the label files.
        image_root: folder of the images; None: the same.
        files: ``config.data.image.files``.

    Attributes:
        seen: paths of the images that labels have named, or a subclass has taken, so far.
    """

    def __init__(self, root: str | Path, image_root: str | Path | None = None, files: str = ""):
        path = expanded(root)
        if not path.is_dir():
            raise DataError(f"the folder of labelled images {path.absolute()} is missing")
        self.labels = Listing(path)
        self.images = self.labels
        if image_root is not None:
            images = expanded(image_root)
            if not images.is_dir():
                raise DataError(f"image_root {images.absolute()} is missing")
            self.images = Listing(images)
        self._pattern = FilePattern(files) if files else None
        self._written: set[str] = set()
        self._guessed: set[str] = set()
        self._withheld: set[str] = set()
        self.seen: set[str] = set()

    def withhold(self) -> bool:
        """Keeps images that some label names with their folder from others that are only called alike.

        Returns:
            Whether one was handed out to both so far: then the labels are to be read again.
        """
        self._withheld = self._written & self._guessed
        if self._withheld:
            self.seen.clear()
        return bool(self._withheld)

    def image(self, name: str, label_file: str, split: str = "") -> str | tuple[str, ...]:
        """Path of the image that a label file calls ``name``, or of the files that make it.

        Args:
            name: as the label file has it.
            label_file: its path below its folder.
            split: of the image; "" where nothing says, or only the label file's folder.

        Raises:
            DataError: there is none, or several are as likely.
        """
        near = posixpath.dirname(label_file)
        only = split == split_of(label_file)
        if self._pattern is None:
            return self._one(name, near, split, only)
        stem = self._pattern.stem(posixpath.basename(name.replace("\\", "/"))) or name
        return tuple(self._one(part, near, split, only) for part in self._pattern.names(stem))

    def _one(self, name: str, near: str, split: str, only: bool) -> str:
        index = self.images.image_index
        found = index.written(name, near)
        if found:
            self._written.add(found)
        else:
            found = index.find(name, near, split, only)
            self._guessed.add(found)
            found = "" if found in self._withheld else found
        if found:
            path = self.images.path(found)
            self.seen.add(path)
            return path
        there = [posixpath.basename(path) for path in self.images.images]
        some = nearest(name, there[:1000]) if there else "; there are no images at all"
        raise DataError(
            f"its image {name!r} is nowhere below {self.images.root}{some}; put it there, or name the "
            f"folder of the images: {given('image_root', 'PATH')}"
        )

    def unseen(self) -> list[tuple[str, ...]]:
        """Files, below their folder, of every image of which none is among ``seen``."""
        names = self.images.images
        images = self._pattern.groups(names).values() if self._pattern else ((n,) for n in names)
        return [files for files in images if self.seen.isdisjoint(map(self.images.path, files))]


class FolderSource(LabelledSource):
    """Images and objects of a folder whose layout a subclass reads.

    The classes are those that the labels list in their order, ``labels.txt`` or ``classes.txt`` of the
    folder, or else every name in its label files, whichever split they belong to, sorted.

    Args:
        root: the folder.
        split: "train", "val", "test" or "trainval" as names of files and folders, or the labels, speak of
            it; "." for all images.
        classes: class names in the order of the labels; None: those of the data.
        image_root: folder of the images; None: ``root``.
        coordinates: how boxes count, one of ``conventions``; "" for the first of these.
        keep_masks: hand out polygons and masks of objects in ``Example.masks``, in COCO's form.
        on_error: ``"raise"``, or ``"skip"`` to leave out images that are missing or whose labels cannot be
            read; they are listed in ``defects``.
        image_settings: what the config says of images.

    Attributes:
        conventions: of ``CONVENTIONS``, those that the layout can have.

    Raises:
        DataError: the folder or the split is missing, an image is, a label file cannot be read, or has a
            class that is not listed.
        ConfigError: ``coordinates`` or ``on_error`` is none of these.
    """

    conventions: ClassVar[tuple[str, ...]] = ("edges",)
    title: ClassVar[str]

    def __init__(
        self,
        root: str | Path,
        split: str = ALL,
        classes: Sequence[str] | None = None,
        *,
        image_root: str | Path | None = None,
        coordinates: str = "",
        keep_masks: bool = False,
        on_error: str = "raise",
        image_settings: ImageSettings = USUAL,
    ):
        self.image_settings = image_settings
        skip = check_on_error(on_error)
        allowed = ", ".join(self.conventions)
        known = coordinates in ("", *self.conventions)
        require(known, "coordinates", coordinates, f"one of {allowed} for {self.title}")
        self._convention = coordinates or self.conventions[0]
        folder = Folder(root, image_root, image_settings.files)
        self.name = f"{self.title} {folder.labels.root.name}" + f":{split}" * (split != ALL)
        self._given = None if classes is None else check_classes(classes, "classes")
        self.notes: Counter[str] = Counter()
        records = list(self._records(folder))
        if folder.withhold():
            self.notes.clear()
            records = list(self._records(folder))
        broken = {stem_of(one.where) for one in records if one.error}
        unused = [folder.images.path(files[0]) for files in folder.unseen()]
        if left := sum(stem_of(path) not in broken for path in unused):
            self.notes["images that no label names left out"] += left
        chosen = _of_split(records, split, folder.labels.root)
        self.class_names = self._given or self._class_list(folder) or _sorted_names(records)
        label_of = {name: label for label, name in enumerate(self.class_names)}

        builder = LabelBuilder(self.name)
        taken: dict[str | tuple[str, ...], str] = {}
        polygons: list[Any] = []
        images: list[str | tuple[str, ...]] = []
        for record in chosen:
            id = _id_of(record, folder)
            for name in {found.name for found in record.objects} - label_of.keys():
                raise unknown_class(name, self.class_names, record.where)
            try:
                if record.error is not None:
                    raise record.error
                if record.image in taken:
                    raise DataError(
                        f"{record.where}: its image {id} has labels in {taken[record.image]} already; "
                        "delete one of them"
                    )
                size = record.size or read_image_size(record.image)
                rows = [self._object(found, size, label_of) for found in record.objects]
            except DataError as error:
                if not skip:
                    raise
                builder.skip(id, error)
                continue
            taken[record.image] = record.where
            images.append(record.image)
            builder.add(id, size, rows)
            polygons += (self._polygons(found, size) for found in record.objects)
        self._table = builder.build(self.class_names)
        self._images = tuple(images)
        if keep_masks and any(polygons):
            self._masks, self.has_masks = LabelMasks(self._table, polygons), True

    @abc.abstractmethod
    def _records(self, folder: Folder) -> Iterable[ImageRecord]:
        """Every image of every split; what is wrong with one is its ``error``."""

    def _class_list(self, folder: Folder) -> tuple[str, ...]:
        """The classes in their order, where something lists them."""
        return class_list(folder.labels)

    def _image(self, index: int) -> str | tuple[str, ...]:
        return self._images[index]

    def _object(
        self, found: RawObject, size: tuple[int, int], label_of: Mapping[str, int]
    ) -> Object:
        first, last = CONVENTIONS[self._convention]
        x1, y1, x2, y2 = found.box
        box = (x1 + first, y1 + first, x2 + last, y2 + last)
        if self._convention == "relative":
            height, width = size
            box = (x1 * width, y1 * height, x2 * width, y2 * height)
        return Object(
            box=box,
            extent=(box[2] - box[0], box[3] - box[1]),
            written=found.box,
            label=label_of[found.name],
            ignore=found.ignore,
        )

    def _polygons(self, found: RawObject, size: tuple[int, int]) -> Any:
        if self._convention != "relative" or not isinstance(found.polygons, list):
            return found.polygons
        scale = (size[1], size[0])
        return [
            [value * scale[place % 2] for place, value in enumerate(points)]
            for points in found.polygons
        ]

    def describe(self) -> str:
        """As of every source, with what was left out or is understood in another way than it is written."""
        told = "; ".join(f"{count} {what}" for what, count in sorted(self.notes.items()))
        return f"{super().describe()}{told and f'; {told}'}"


def class_list(listing: Listing, anywhere: bool = False) -> tuple[str, ...]:
    """The classes that a file of ``CLASS_LISTS`` lists; empty where there is none.

    Args:
        listing: of the folder.
        anywhere: the file may lie in any folder below; the one highest up counts.

    Raises:
        DataError: two of them, equally high up, list others; or one lists a class twice.
    """
    paths = [path for path in listing.of(".txt") if posixpath.basename(path) in CLASS_LISTS]
    paths = [path for path in paths if anywhere or "/" not in path]
    highest = min((path.count("/") for path in paths), default=0)
    found: dict[str, tuple[str, ...]] = {}
    for path in (path for path in paths if path.count("/") == highest):
        lines = (line.strip() for line in read_text(Path(listing.path(path))).split("\n"))
        found[path] = check_classes([line for line in lines if line], listing.path(path))
    if len(set(found.values())) > 1:
        raise DataError(
            f"{' and '.join(map(listing.path, found))} list different classes; delete one of them"
        )
    return next(iter(found.values()), ())


def _of_split(records: list[ImageRecord], split: str, root: Path) -> list[ImageRecord]:
    if not records:
        raise DataError(f"{root} holds no labels")
    chosen = records if split == ALL else [one for one in records if one.split == split]
    if not chosen:
        there = sorted({one.split for one in records if one.split})
        raise DataError(
            f"{root} has no split {split!r}{nearest(split, there)}; there are "
            f"{', '.join(there) or 'none'}, and '.' is all of them"
        )
    return chosen


def _sorted_names(records: Sequence[ImageRecord]) -> tuple[str, ...]:
    """Every name of a class in use.

    Raises:
        DataError: two differ by case alone.
    """
    counts = Counter(one.name for record in records for one in record.objects)
    alike: dict[str, str] = {}
    for name in sorted(counts):
        other = alike.setdefault(name.casefold(), name)
        if other != name:
            where = next(
                record.where
                for record in records
                if any(
                    one.name == min(name, other, key=counts.__getitem__) for one in record.objects
                )
            )
            raise DataError(
                f"{where}: the classes {other!r} ({counts[other]} objects) and {name!r} "
                f"({counts[name]}) differ "
                "by case alone; write one of them everywhere, or, where both are meant, name all classes: "
                f"{given('classes', '+'.join(sorted(counts)))}"
            )
    return tuple(sorted(counts))


def _id_of(record: ImageRecord, folder: Folder) -> str:
    """The path of an image below its folder; where it has none, that of its label file."""
    if not record.image:
        return os.path.relpath(record.where, folder.labels.root).replace(os.sep, "/")
    first = record.image if isinstance(record.image, str) else record.image[0]
    return os.path.relpath(first, folder.images.root).replace(os.sep, "/")
