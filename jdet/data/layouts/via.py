"""VIA (VGG Image Annotator 1 and 2): one JSON file, a project or its annotations, for many images."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jdet.data.layouts.arguments import given
from jdet.data.layouts.listing import Listing, holds
from jdet.data.layouts.records import (
    ImageRecord,
    RawObject,
    attempt,
    ellipse,
    hull,
    numbers,
    polygon,
)
from jdet.data.layouts.source import Folder, FolderSource
from jdet.data.layouts.words import ALL, split_of
from jdet.data.readers.settings import USUAL, ImageSettings
from jdet.data.sources.label_text import class_name, read_json
from jdet.types import DataError

TITLE = "VIA"
FORM = "a JSON file with filename and regions for every image"

_USUAL = ("class", "label", "name", "category", "type", "object")
_NO_AREA = {"point", "polyline", "line"}


def find(listing: Listing) -> dict[str, str]:
    """Splits of a folder of VIA's layout → a label file of each; empty where it is none.

    They are those of the files' names and folders, or else of the folders in the names of the images.
    """
    found: dict[str, str] = {}
    for path in _files(listing):
        for image in _images(listing.path(path)):
            found.setdefault(_split(image, path), path)
        found or found.setdefault(split_of(path), path)
    return found


def _split(image: Mapping[str, Any], path: str) -> str:
    return split_of(path) or split_of(posixpath.dirname(_filename(image)))


def _filename(image: Mapping[str, Any]) -> str:
    return str(image.get("filename") or "").replace("\\", "/")


def _files(listing: Listing) -> list[str]:
    return listing.likely(".json", _is_via)


def _is_via(path: Path) -> bool:
    return holds(b'"filename"', b'"regions"')(path)


class ViaSource(FolderSource):
    """Images and regions of VIA's files, projects and annotations alike.

    Rectangles, polygons, circles and ellipses are objects; the box of each is the hull. Points and
    lines are left out, and counted. An image without regions has no objects.

    Beside what ``FolderSource`` takes, ``attribute`` says which attribute of the regions is the class;
    "" is the only one, or the first of class, label, name, category, type and object that all have.
    """

    title = TITLE

    def __init__(
        self,
        root: str | Path,
        split: str = ALL,
        classes: Sequence[str] | None = None,
        *,
        attribute: str = "",
        image_root: str | Path | None = None,
        coordinates: str = "",
        keep_masks: bool = False,
        on_error: str = "raise",
        image_settings: ImageSettings = USUAL,
    ):
        self._attribute = attribute
        super().__init__(
            root,
            split,
            classes,
            image_root=image_root,
            coordinates=coordinates,
            keep_masks=keep_masks,
            on_error=on_error,
            image_settings=image_settings,
        )

    def _records(self, folder: Folder) -> Iterator[ImageRecord]:
        files = {label: _images(folder.labels.path(label)) for label in _files(folder.labels)}
        attribute = self._attribute or _attribute(files, folder)
        for label, images in files.items():
            path = folder.labels.path(label)
            for image in images:
                split = _split(image, label)

                def read(image: Any = image, label: str = label, split: str = split) -> ImageRecord:
                    return self._read(folder, label, split, image, attribute)

                yield attempt(f"{path}, image {image.get('filename')}", split, read)

    def _read(
        self, folder: Folder, label: str, split: str, image: Mapping[str, Any], attribute: str
    ) -> ImageRecord:
        where = f"{folder.labels.path(label)}, image {image.get('filename')}"
        found = folder.image(_filename(image), label, split)
        objects = []
        for place, region in enumerate(_regions(image)):
            shape = _part(region, "shape_attributes")
            if shape.get("name") in _NO_AREA:
                self.notes["points and lines left out"] += 1
                continue
            what = f"{where}, regions[{place}]"
            box, polygons = _shape(shape, what)
            objects.append(RawObject(_name(region, attribute, what), box, polygons))
        return ImageRecord(where, found, split, tuple(objects))


def _images(path: str) -> list[Mapping[str, Any]]:
    data = read_json(Path(path))
    if isinstance(data, Mapping):
        data = data.get("_via_img_metadata", data)
    found = list(data.values()) if isinstance(data, Mapping) else data
    if not isinstance(found, list) or not all(
        isinstance(one, Mapping) and "filename" in one for one in found
    ):
        raise DataError(
            f"{path} holds filename and regions, and not in VIA's form; export the annotations as "
            "JSON again"
        )
    return found


def _regions(image: Mapping[str, Any]) -> list[Any]:
    regions = image.get("regions") or []
    return list(regions.values()) if isinstance(regions, Mapping) else list(regions)


def _part(region: Any, key: str) -> Mapping[str, Any]:
    part = region.get(key) if isinstance(region, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _attribute(files: Mapping[str, list[Mapping[str, Any]]], folder: Folder) -> str:
    """The attribute of the regions that is their class.

    Raises:
        DataError: several may be.
    """
    counts: Counter[str] = Counter()
    total = 0
    for image in (image for images in files.values() for image in images):
        for region in _regions(image):
            total += 1
            counts.update(str(key) for key in _part(region, "region_attributes"))
    if len(counts) < 2:
        return next(iter(counts), "")
    lowered = {key.lower(): key for key in counts if counts[key] == total}
    if usual := next((lowered[key] for key in _USUAL if key in lowered), None):
        return usual
    first = folder.labels.path(next(iter(files)))
    choice = max(counts, key=counts.__getitem__)
    raise DataError(
        f"{first}: any of the attributes {', '.join(sorted(counts))} of the regions may be the "
        f"class; say which, such as {given('attribute', choice, in_experiments=False)}"
    )


def _name(region: Any, attribute: str, what: str) -> str:
    value = _part(region, "region_attributes").get(attribute)
    if isinstance(value, Mapping):  # boxes that are ticked
        ticked = [key for key, on in value.items() if on]
        if len(ticked) != 1:
            raise DataError(f"{what}: {attribute} is {value!r}; tick one of them")
        value = ticked[0]
    if value in (None, ""):
        raise DataError(
            f"{what} has no class in region_attributes ({attribute or 'there are none'}); give it "
            "one in VIA, "
            "or delete the region"
        )
    return class_name(value, what)


def _shape(shape: Mapping[str, Any], what: str) -> tuple[tuple[float, float, float, float], Any]:
    kind = shape.get("name")
    if kind == "rect":
        x, y, width, height = _numbers(shape, ("x", "y", "width", "height"), what)
        return (x, y, x + width, y + height), None
    if kind == "polygon":
        x, y = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y) or not x:
            counts = " and ".join(str(len(v)) if isinstance(v, list) else "no" for v in (x, y))
            raise DataError(
                f"{what}: the polygon has {counts} x and y; it needs as many of one as of the other"
            )
        points = polygon([value for pair in zip(x, y, strict=True) for value in pair], what)
        return hull([points]), [points]
    if kind == "circle":
        x, y, radius = _numbers(shape, ("cx", "cy", "r"), what)
        return ellipse(x, y, radius, radius)
    if kind == "ellipse":
        x, y, rx, ry = _numbers(shape, ("cx", "cy", "rx", "ry"), what)
        return ellipse(x, y, rx, ry)
    raise DataError(
        f"{what} is of the shape {kind!r}; known are rect, polygon, circle, ellipse, point, polyline"
    )


def _numbers(shape: Mapping[str, Any], keys: Sequence[str], what: str) -> list[float]:
    missing = [key for key in keys if key not in shape]
    if missing:
        raise DataError(f"{what}: the {shape.get('name')} has no {', '.join(missing)}")
    return numbers((shape[key] for key in keys), what)
