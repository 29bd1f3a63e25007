"""Open Images: one table of boxes for each split, relative to the images, whose names are their ids."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from jdet.data.layouts.listing import Listing
from jdet.data.layouts.records import ImageRecord, RawObject, attempt, numbers
from jdet.data.layouts.source import Folder, FolderSource
from jdet.data.layouts.table_file import Row, head, rows
from jdet.data.layouts.words import split_of
from jdet.data.sources.label_text import class_name, flag
from jdet.types import DataError

TITLE = "Open Images"
FORM = "train-annotations-bbox.csv with the columns ImageID, LabelName, XMin, XMax, YMin, YMax"

_NEEDED = {"ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax"}
_SLACK = 0.01
"""How far a coordinate may lie outside 0 … 1 by rounding."""


def find(listing: Listing) -> dict[str, str]:
    """Splits of a folder of Open Images' layout → a table of each; empty where it is none."""
    found: dict[str, str] = {}
    for path in _files(listing):
        found.setdefault(split_of(path), path)
    return found


def _files(listing: Listing) -> list[str]:
    first = {path: head(Path(listing.path(path))) for path in listing.of(".csv")}
    return [path for path, lines in first.items() if lines and set(lines[0]) >= _NEEDED]


class OpenImagesSource(FolderSource):
    """Images and boxes of Open Images' tables (Kuznetsova et al. 2020), as FiftyOne exports them too.

    Classes have the names that ``class-descriptions-boxable.csv`` gives their ids, and else their ids.
    A box around a group (``IsGroupOf``) is ignored in evaluation. Images that no line names are left out.
    """

    title = TITLE
    conventions = ("relative",)

    def _records(self, folder: Folder) -> Iterator[ImageRecord]:
        names = _descriptions(folder.labels)
        for label in _files(folder.labels):
            path, split = folder.labels.path(label), split_of(label)
            images: dict[str, list[Row]] = {}
            for row in rows(Path(path)):
                images.setdefault(row.fields.get("imageid", ""), []).append(row)
            for id, lines in images.items():
                where = f"{path}, line {lines[0].line}"
                read = functools.partial(_read, folder, label, where, split, id, lines, names)
                yield attempt(where, split, read)


def _read(
    folder: Folder,
    label: str,
    where: str,
    split: str,
    id: str,
    lines: list[Row],
    names: dict[str, str],
) -> ImageRecord:
    path, image = folder.labels.path(label), folder.image(id, label, split)
    objects = tuple(_object(row, f"{path}, line {row.line}", names) for row in lines)
    return ImageRecord(where, image, split, objects)


def _object(row: Row, where: str, names: dict[str, str]) -> RawObject:
    keys = ("xmin", "ymin", "xmax", "ymax")
    x1, y1, x2, y2 = numbers((row.fields.get(key) for key in keys), f"{where}: {', '.join(keys)}")
    for value in (x1, y1, x2, y2):
        if not -_SLACK <= value <= 1 + _SLACK:
            raise DataError(
                f"{where}: the coordinate {value:g} is not in 0 … 1 of the image, as Open Images "
                "has them; call "
                "the columns of boxes in pixels filename,xmin,ymin,xmax,ymax,class"
            )
    id = row.fields.get("labelname", "")
    group = flag(row.fields.get("isgroupof"), f"{where}: IsGroupOf")
    return RawObject(class_name(names.get(id, id), where), (x1, y1, x2, y2), ignore=group)


def _descriptions(listing: Listing) -> dict[str, str]:
    """Id of a class → its name, from a table of two columns whose ids look like those of classes."""
    found: dict[str, str] = {}
    for path in listing.of(".csv"):
        lines = head(Path(listing.path(path)))
        if lines and len(lines[0]) == 2 and any(line[0].startswith("/m/") for line in lines):
            for row in rows(Path(listing.path(path)), ["id", "name"]):
                if row.fields.get("id", "").startswith("/m/") and row.fields.get("name"):
                    found[row.fields["id"]] = row.fields["name"]
    return found
