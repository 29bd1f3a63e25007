"""CVAT for images 1.1: one XML file for many images."""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from jdet.data.layouts.listing import Listing
from jdet.data.layouts.records import (
    ImageRecord,
    RawObject,
    attempt,
    ellipse,
    hull,
    numbers,
    polygon,
    turned,
)
from jdet.data.layouts.source import Folder, FolderSource
from jdet.data.layouts.words import split_of
from jdet.data.segmentation import encode_part
from jdet.data.sources.label_text import class_name
from jdet.data.sources.xml_file import read_xml, root_tag
from jdet.types import DataError

TITLE = "CVAT"
FORM = "annotations.xml, exported as 'CVAT for images 1.1'"

_AREAS = {"box", "polygon", "ellipse", "mask"}
_NO_AREA = {"polyline", "points", "cuboid", "skeleton", "tag"}


def find(listing: Listing) -> dict[str, str]:
    """Splits of a folder of CVAT's layout → a label file of each; empty where it is none.

    The splits are the subsets of the images, which the file itself says.
    """
    found: dict[str, str] = {}
    for path in _files(listing):
        for image in _root(listing.path(path)).iter("image"):
            found.setdefault(_split(image, path), path)
        found or found.setdefault(split_of(path), path)
    return found


def _files(listing: Listing) -> list[str]:
    return listing.likely(".xml", lambda path: root_tag(path) == "annotations")


@functools.lru_cache(2)
def _parsed(path: str, changed: int) -> Element:
    return read_xml(path)


def _root(path: str) -> Element:
    """The content of a file, which is large and read for its splits, to train and to evaluate."""
    return _parsed(path, Path(path).stat().st_mtime_ns)


def _split(image: Element, path: str) -> str:
    name = image.get("name") or ""
    return (
        split_of(image.get("subset") or "") or split_of(posixpath.dirname(name)) or split_of(path)
    )


class CvatSource(FolderSource):
    """Images and shapes of CVAT's XML files.

    Boxes, polygons, ellipses and masks are objects; the box of each is the hull, of a turned box that
    of its corners. Other shapes are left out, and counted. An image without shapes has no objects.
    """

    title = TITLE

    def _records(self, folder: Folder) -> Iterator[ImageRecord]:
        for label in _files(folder.labels):
            path = folder.labels.path(label)
            root = _root(path)
            if root.find("track") is not None:
                raise DataError(
                    f"{path} holds tracks of a video; export it as 'CVAT for images 1.1', with images"
                )
            for image in root.iter("image"):
                where = f"{path}, image {image.get('name')}"
                split = _split(image, label)
                read = functools.partial(self._read, folder, label, where, split, image)
                yield attempt(where, split, read)

    def _read(
        self, folder: Folder, label: str, where: str, split: str, image: Element
    ) -> ImageRecord:
        found = folder.image(image.get("name") or "", label, split)
        sides = (image.get(key) for key in ("height", "width"))
        height, width = (int(side) for side in numbers(sides, f"{where}: its height or width"))
        objects = []
        for place, shape in enumerate(image):
            if shape.tag in _NO_AREA:
                self.notes["points, lines, cuboids and tags left out"] += 1
            elif shape.tag in _AREAS:
                what = f"{where}, shape {place + 1} ({shape.tag})"
                box, polygons = _shape(shape, (height, width), what)
                name = class_name(shape.get("label") or "", what)
                objects.append(RawObject(name, box, polygons))
        return ImageRecord(where, found, split, tuple(objects), (height, width))


def _shape(
    shape: Element, size: tuple[int, int], what: str
) -> tuple[tuple[float, float, float, float], Any]:
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in (shape.get("points") or "").split(";")]
        points = polygon([value for pair in pairs for value in pair], what)
        return hull([points]), [points]
    if shape.tag == "ellipse":
        x, y, rx, ry = _values(shape, ("cx", "cy", "rx", "ry"), what)
        return ellipse(x, y, rx, ry)
    if shape.tag == "mask":
        return _mask(shape, size, what)
    x1, y1, x2, y2 = _values(shape, ("xtl", "ytl", "xbr", "ybr"), what)
    (angle,) = numbers([shape.get("rotation") or 0], f"{what}: its rotation")
    if not angle:
        return (x1, y1, x2, y2), None
    corners = turned((x1, y1, x2, y2), angle)
    return hull([corners]), [corners]


def _mask(shape: Element, size: tuple[int, int], what: str) -> Any:
    """Runs along the rows of a part of the image, background first."""
    left, top, width, height = map(int, _values(shape, ("left", "top", "width", "height"), what))
    runs = numbers((shape.get("rle") or "").split(","), f"{what}: its rle")
    runs = np.array(runs).astype(int)
    if runs.min() < 0 or runs.sum() != width * height:
        raise DataError(
            f"{what}: the runs of its rle cover {runs.sum()} pixels of {width}x{height}; export it again"
        )
    inside = np.arange(len(runs)) % 2 == 1
    part = np.repeat(inside, runs).reshape(height, width)
    part = part[: size[0] - top, : size[1] - left]
    return (left, top, left + width, top + height), encode_part(part, top, left, *size)


def _values(shape: Element, keys: tuple[str, ...], what: str) -> list[float]:
    return numbers((shape.get(key) for key in keys), f"{what}: {', '.join(keys)}")
