"""LabelMe: a JSON file for every image."""

from __future__ import annotations

import base64
import binascii
import math
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdet.data.layouts.listing import Listing, holds
from jdet.data.layouts.path_index import stem_of
from jdet.data.layouts.records import ImageRecord, RawObject, attempt, ellipse, hull, numbers
from jdet.data.layouts.source import Folder, FolderSource
from jdet.data.layouts.words import by_folder, split_of_folder
from jdet.data.segmentation import encode_part
from jdet.data.sources.coco_file import size_of
from jdet.data.sources.label_text import class_name, flag, read_json
from jdet.types import DataError

TITLE = "LabelMe"
FORM = "a JSON file with shapes and imagePath for every image"

_NO_AREA = {"point", "points", "line", "linestrip"}


def find(listing: Listing) -> dict[str, str]:
    """Splits of a folder of LabelMe's layout → a label file of each; empty where it is none."""
    return by_folder(_files(listing))


def _files(listing: Listing) -> list[str]:
    return listing.likely(".json", holds(b'"shapes"', b'"imagePath"'))


class LabelMeSource(FolderSource):
    """Images with LabelMe's JSON files, also as X-AnyLabeling and AnyLabeling write them.

    Of ``shapes`` rectangles, polygons, circles, turned rectangles and masks are objects; the box of
    each is the hull. Shapes of one label and ``group_id`` are one object. Points and lines are left
    out, and counted. An image without a JSON file is no image without objects, and is left out.
    """

    title = TITLE

    def _records(self, folder: Folder) -> Iterator[ImageRecord]:
        for label in _files(folder.labels):
            where, split = folder.labels.path(label), split_of_folder(label)

            def read(label: str = label, where: str = where, split: str = split) -> ImageRecord:
                return self._read(folder, label, where, split)

            yield attempt(where, split, read)

    def _read(self, folder: Folder, label: str, where: str, split: str) -> ImageRecord:
        data = read_json(Path(where))
        if not isinstance(data, Mapping) or not isinstance(data.get("shapes"), list):
            raise DataError(f"{where}: it has no list `shapes`")
        size = size_of({"height": data.get("imageHeight"), "width": data.get("imageWidth")})
        image = _image(folder, str(data.get("imagePath") or ""), label)
        groups: dict[Any, list[tuple[RawObject, str]]] = defaultdict(list)
        for place, shape in enumerate(data["shapes"]):
            what = f"{where}: shapes[{place}]"
            if not isinstance(shape, Mapping):
                raise DataError(f"{what} is {shape!r}; expected label, points and shape_type")
            if str(shape.get("shape_type")) in _NO_AREA:
                self.notes["points and lines left out"] += 1
                continue
            found = _shape(shape, what, size)
            group = shape.get("group_id")
            key = place if group is None else (found.name, repr(group))
            groups[key].append((found, what))
        return ImageRecord(where, image, split, tuple(map(_together, groups.values())), size)


def _image(folder: Folder, name: str, label: str) -> str | tuple[str, ...]:
    """The image by its name, or else by that of the label file, which may have been renamed with it."""
    try:
        return folder.image(name, label)
    except DataError as error:
        try:
            return folder.image(stem_of(posixpath.basename(label)), label)
        except DataError:
            raise error from None


def _shape(shape: Mapping[str, Any], what: str, size: tuple[int, int] | None) -> RawObject:
    name = class_name(shape.get("label"), what)
    kind = str(shape.get("shape_type") or "polygon")
    ignore = flag(shape.get("difficult"), f"{what}: difficult")
    points = shape.get("points")
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in points
    ):
        raise DataError(f"{what} has the points {points!r}; expected [[x, y], [x, y], …]")
    flat = numbers((value for point in points for value in point), what)
    least = {"rectangle": 2, "circle": 2, "mask": 2}.get(kind, 3)
    if len(points) < least:
        raise DataError(
            f"{what}, a {kind}, has {len(points)} points, not {least}; correct it or delete it"
        )
    if kind == "circle":
        x, y, edge_x, edge_y = flat[:4]
        radius = math.hypot(edge_x - x, edge_y - y)
        return RawObject(name, *ellipse(x, y, radius, radius), ignore)
    box = hull([flat])
    if kind == "rectangle":
        return RawObject(name, box, None, ignore)
    if kind == "mask":
        return RawObject(name, *_mask(shape.get("mask"), box, size, what), ignore)
    return RawObject(name, box, [flat], ignore)


def _mask(
    text: Any, box: Sequence[float], size: tuple[int, int] | None, what: str
) -> tuple[tuple[float, float, float, float], Any]:
    """A mask, a PNG as text, of which the first corner of the box is the upper left pixel; and its box.

    The second corner is the last pixel: the sides of the box are those of the PNG.
    """
    import cv2

    try:
        data = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
        part = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    except (TypeError, ValueError, binascii.Error, cv2.error):
        part = None
    if part is None or size is None:
        raise DataError(f"{what}: its mask is no PNG, or the image's height and width are missing")
    left, top = max(round(box[0]), 0), max(round(box[1]), 0)
    part = part[: size[0] - top, : size[1] - left] > 0
    height, width = part.shape
    return (left, top, left + width, top + height), encode_part(part, top, left, *size)


def _together(parts: Sequence[tuple[RawObject, str]]) -> RawObject:
    """One object of several shapes."""
    first = parts[0][0]
    if len(parts) == 1:
        return first
    shapes: list[list[float]] = []
    for part, what in parts:
        if isinstance(part.polygons, Mapping):
            raise DataError(f"{what}: a mask cannot be a part of a group; give it no group_id")
        x1, y1, x2, y2 = part.box
        shapes += part.polygons or [[x1, y1, x2, y1, x2, y2, x1, y2]]
    return first._replace(box=hull(shapes), polygons=shapes, ignore=any(p.ignore for p, _ in parts))
