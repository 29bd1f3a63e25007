"""DOTA: a text file for every image, the four corners of a turned box and its class on every line."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path

from jdet.data.layouts import label_lines
from jdet.data.layouts.listing import Listing
from jdet.data.layouts.path_index import stem_of
from jdet.data.layouts.records import ImageRecord, RawObject, attempt, hull, numbers
from jdet.data.layouts.source import Folder, FolderSource
from jdet.data.layouts.words import by_folder, split_of_folder
from jdet.data.sources.label_text import class_name, flag
from jdet.types import DataError

TITLE = "DOTA"
FORM = "labelTxt/*.txt with x1 y1 x2 y2 x3 y3 x4 y4 class on each line, images of the same names"


def find(listing: Listing) -> dict[str, str]:
    """Splits of a folder of DOTA's layout → a label file of each; empty where it is none."""
    if "dota" not in label_lines.kinds(listing):
        return {}
    return by_folder(label_lines.label_texts(listing))


class DotaSource(FolderSource):
    """Images with DOTA's text files (Xia et al., CVPR 2018): corners in pixels, class, difficulty.

    The box is the axis-aligned hull of the four corners, which ``describe`` says; the corners are kept as a
    polygon. Lines at the top such as ``imagesource:GoogleEarth`` are passed over. An object of difficulty 1
    or more is ignored in evaluation.
    """

    title = TITLE

    def _records(self, folder: Folder) -> Iterator[ImageRecord]:
        for label in label_lines.label_texts(folder.labels):
            where, split = folder.labels.path(label), split_of_folder(label)

            def read(label: str = label, where: str = where, split: str = split) -> ImageRecord:
                image = folder.image(stem_of(posixpath.basename(label)), label)
                lines = label_lines.lines_of(Path(where))
                objects = tuple(
                    _line(line, f"{where}, line {number}")
                    for number, line in lines
                    if not label_lines.is_header(line)
                )
                self.notes["boxes are the axis-aligned hulls of turned ones"] += len(objects)
                return ImageRecord(where, image, split, objects)

            yield attempt(where, split, read)


def _line(line: str, where: str) -> RawObject:
    fields = line.split()
    values = fields[:8]
    if len(fields) < 9:
        raise DataError(
            f"{where}: {line!r} has {len(fields)} fields; expected x1 y1 x2 y2 x3 y3 x4 y4 class, "
            "and perhaps "
            "difficulty"
        )
    corners = numbers(values, where)
    difficult = flag(fields[9] if len(fields) > 9 else None, f"{where}: the difficulty")
    return RawObject(class_name(fields[8], where), hull([corners]), [corners], difficult)
