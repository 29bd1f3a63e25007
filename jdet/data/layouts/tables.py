"""CSV: a line for every box, below a header that names the columns, or as keras-retinanet has it."""

from __future__ import annotations

import functools
import json
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jdet.data.image_formats import SUFFIXES
from jdet.data.layouts.arguments import given
from jdet.data.layouts.listing import Listing
from jdet.data.layouts.records import ImageRecord, RawObject, attempt, numbers
from jdet.data.layouts.source import Folder, FolderSource
from jdet.data.layouts.table_file import Row, head, rows
from jdet.data.layouts.words import split_of
from jdet.data.sources.coco_file import size_of
from jdet.data.sources.label_text import class_name
from jdet.types import DataError

TITLE = "CSV"
FORM = "a CSV file with the columns filename, xmin, ymin, xmax, ymax, class"
WANTED = ("filename", "xmin", "ymin", "xmax", "ymax", "class")

HEADERLESS = ["filename", "xmin", "ymin", "xmax", "ymax", "class"]
"""Columns of keras-retinanet's files, which have no header."""

_SYNONYMS = {
    "filename": (
        *(
            "filename",
            "file_name",
            "image",
            "image_name",
            "image_path",
            "image_id",
            "imageid",
            "img",
        ),
        *("img_path", "path", "file", "filepath", "file_path", "image_file", "img_name"),
    ),
    "xmin": ("xmin", "x1", "x_min", "left", "bbox_x1", "box_xmin", "min_x"),
    "ymin": ("ymin", "y1", "y_min", "top", "bbox_y1", "box_ymin", "min_y"),
    "xmax": ("xmax", "x2", "x_max", "right", "bbox_x2", "box_xmax", "max_x"),
    "ymax": ("ymax", "y2", "y_max", "bottom", "bbox_y2", "box_ymax", "max_y"),
    "x": ("bbox_x", "x", "xmin", "left", "x_min"),
    "y": ("bbox_y", "y", "ymin", "top", "y_min"),
    "w": ("bbox_width", "bbox_w", "w", "box_width", "width"),
    "h": ("bbox_height", "bbox_h", "h", "box_height", "height"),
    "bbox": ("bbox", "box", "bounding_box"),
    "class": (
        *("class", "class_name", "label", "label_name", "labelname", "category", "name"),
        *("category_name", "classname", "object", "species", "type"),
    ),
    "split": ("split", "subset", "set", "partition"),
}
"""What each column may be called, in lower case."""

_CORNERS, _SIDES = ("xmin", "ymin", "xmax", "ymax"), ("x", "y", "w", "h")


class Columns(NamedTuple):
    """The columns of a table.

    Attributes:
        image: of the image's name.
        box: four columns, or one that holds four numbers in brackets, x y width height.
        sides: the box is x y width height.
        name: of the class; "" where there is none.
        split: "" where there is none.
        header: the first line is one.
    """

    image: str
    box: tuple[str, ...]
    sides: bool
    name: str
    split: str
    header: bool


def find(listing: Listing) -> dict[str, str]:
    """Splits of a folder with tables of boxes → a table of each; empty where there is none."""
    found: dict[str, str] = {}
    for path, columns in _files(listing).items():
        if not columns.split:
            found.setdefault(split_of(path), path)
            continue
        for row in rows(Path(listing.path(path))):
            found.setdefault(split_of(row.fields.get(columns.split, "")), path)
    return found


def _files(listing: Listing) -> dict[str, Columns]:
    paths = [path for path in listing.of(".csv", ".tsv") if not _is_open_images(listing, path)]
    read = {path: columns_of(head(Path(listing.path(path)))) for path in paths}
    return {path: columns for path, columns in read.items() if columns}


def _is_open_images(listing: Listing, path: str) -> bool:
    lines = head(Path(listing.path(path)))
    return bool(lines) and {"ImageID", "LabelName", "XMin"} <= set(lines[0])


def columns_of(lines: list[list[str]]) -> Columns | None:
    """The columns of a table by its first two lines; None where it is no table of boxes."""
    if not lines:
        return None
    first = [name.lower() for name in lines[0]]
    called = {
        key: next((name for name in names if name in first), "") for key, names in _SYNONYMS.items()
    }
    if called["filename"]:
        common = called["filename"], called["class"], called["split"]
        for keys, sides in ((_CORNERS, False), (_SIDES, True), (("bbox",), True)):
            box = tuple(called[key] for key in keys)
            if all(box) and len(set(box)) == len(box):
                return Columns(common[0], box, sides, common[1], common[2], True)
    if len(first) == 6 and posixpath.splitext(first[0])[1] in SUFFIXES:
        if all(map(_is_number, first[1:5])) or not any(first[1:]):
            return Columns("filename", _CORNERS, False, "class", "", False)
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class CsvSource(FolderSource):
    """Images and boxes of CSV files, whose lines of one image belong together wherever they stand.

    Columns are found by their names in many spellings: image, corners or corner and size, class, and
    the sides of the image and the split where there are any. Separators are commas, semicolons or tabs.
    A line without coordinates, such as ``a.jpg,,,,,``, is an image without objects. Images that no line
    names are left out. Where no column is the class, all are of the class "object".
    """

    title = TITLE
    conventions = ("edges", "from_0", "from_1", "relative")

    def _records(self, folder: Folder) -> Iterator[ImageRecord]:
        largest, path = 0.0, ""
        for label, columns in _files(folder.labels).items():
            path = folder.labels.path(label)
            images: dict[tuple[str, str], list[Row]] = {}
            for row in rows(Path(path), None if columns.header else list(HEADERLESS)):
                split = split_of(row.fields.get(columns.split, "")) or split_of(label)
                images.setdefault((row.fields.get(columns.image, ""), split), []).append(row)
            for (name, split), lines in images.items():
                where = f"{path}, line {lines[0].line}"
                read = functools.partial(
                    self._read, folder, label, where, split, name, lines, columns
                )
                record = attempt(where, split, read)
                largest = max((largest, *(max(one.box) for one in record.objects)))
                yield record
        if self._convention != "relative" and 0 < largest <= 1:
            raise DataError(
                f"{path}: no coordinate is above {largest:g}; where they are relative to the images, say "
                f"so: {given('coordinates', 'relative')}"
            )

    def _read(
        self,
        folder: Folder,
        label: str,
        where: str,
        split: str,
        name: str,
        lines: list[Row],
        columns: Columns,
    ) -> ImageRecord:
        if not name:
            raise DataError(f"{where}: the column {columns.image} is empty; it names the image")
        image = folder.image(name, label, split)
        objects = [_object(row, columns, folder.labels.path(label)) for row in lines]
        fields = lines[0].fields
        size = None if "width" in columns.box else _size(fields)
        return ImageRecord(where, image, split, tuple(one for one in objects if one), size)


def _size(fields: Mapping[str, str]) -> tuple[int, int] | None:
    sides: dict[str, Any] = {}
    for key in ("height", "width"):
        sides[key] = next((fields[name] for name in (key, f"image_{key}") if name in fields), None)
    return size_of(sides)


def _object(row: Row, columns: Columns, path: str) -> RawObject | None:
    where = f"{path}, line {row.line}"
    values = [row.fields.get(key, "") for key in columns.box]
    if not any(values) or values == ["[]"]:
        return None
    if len(values) == 1:
        try:
            values = json.loads(values[0].replace("(", "[").replace(")", "]"))
        except ValueError:
            values = []
        if not isinstance(values, list) or len(values) != 4:
            raise DataError(
                f"{where}: {columns.box[0]} is {row.fields.get(columns.box[0])!r}; expected [x, "
                "y, width, height]"
            )
    what = f"{where}: {', '.join(columns.box)}"
    x1, y1, x2, y2 = numbers(values, what)
    if columns.sides:
        x2, y2 = x1 + x2, y1 + y2
    name = class_name(row.fields.get(columns.name, ""), where) if columns.name else "object"
    return RawObject(name, (x1, y1, x2, y2))
