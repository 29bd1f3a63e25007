"""What a COCO annotation file says: its records by id, its classes, boxes and flags."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdet.data.readers.file_pattern import FilePattern
from jdet.data.segmentation import extent
from jdet.data.sources import label_text
from jdet.data.sources.annotations import Object, check_classes
from jdet.data.sources.label_text import class_name, flag, record_id
from jdet.types import DataError

Record = dict[str, Any]


def read_json(path: Path) -> dict[str, list[Record]]:
    """The lists of an annotation file, which may be in any encoding of ``label_text.decode``.

    Raises:
        DataError: the file is missing, not JSON, or not of COCO's form.
    """
    try:
        data = label_text.read_json(path)
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing. Download COCO 2017 with `python data/get_coco.py --root data`, or "
            "name your own COCO annotation file (data/README.md shows its form)."
        ) from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise DataError(
                f"{path} has no list `{key}`; a COCO detection file holds `images`, `annotations` "
                "and `categories`"
            )
    return data


def check_fields(path: Path, key: str, records: list[Record], fields: Sequence[str]) -> None:
    """Refuses records that lack a field.

    Raises:
        DataError: naming the file, the record and what it lacks.
    """
    for position, record in enumerate(records):
        missing = [f for f in fields if not isinstance(record, dict) or f not in record]
        if missing:
            raise DataError(f"{path}: {key}[{position}] has no `{'`, `'.join(missing)}`")


def by_id(path: Path, key: str, records: list[Record], field: str) -> dict[int | str, Record]:
    """Id (as of ``record_id``) → record, each with ``field`` and an id of its own.

    Raises:
        DataError: naming the file and the record.
    """
    check_fields(path, key, records, ("id", field))
    found: dict[int | str, Record] = {}
    for position, record in enumerate(records):
        id = record_id(record["id"])
        if id is None:
            raise DataError(f"{path}: {key}[{position}] has the id {record['id']!r}")
        found[id] = record
    if len(found) != len(records):
        counts = Counter(record_id(record["id"]) for record in records)
        doubles = [str(id) for id, n in counts.items() if n > 1]
        more = f" and {len(doubles) - 10} more" if len(doubles) > 10 else ""
        raise DataError(f"{path}: `{key}` uses these ids twice: {', '.join(doubles[:10])}{more}")
    return found


def own_id(record: Record) -> int | str:
    """The id of a record as the file has it, which others that read the file go by."""
    id = record["id"]
    return int(id) if isinstance(id, float) else id


def called(annotation: Record, position: int) -> str:
    """What to call an annotation in a message: they need no ids."""
    id = annotation.get("id")
    return f"annotations[{position}]" if id is None else f"annotation {id}"


def category_names(
    path: Path, categories: Mapping[int | str, Record], used: set[int | str]
) -> dict[int | str, str]:
    """Id → class name, in the order of the ids, numbers before text.

    Of two categories of one name the one that says less goes: a group that the other one names as its
    ``supercategory``, as Roboflow writes it with id 0, or else the one without annotations.

    Args:
        path: the file, for messages.
        categories: by id.
        used: ids of categories that have annotations.

    Raises:
        DataError: a name is none, or two categories with annotations share one.
    """
    where = f"{path}, categories"
    order = sorted(categories, key=lambda id: (isinstance(id, str), id))
    names = {id: class_name(categories[id]["name"], where) for id in order}
    for name in [name for name, count in Counter(names.values()).items() if count > 1]:
        same = [id for id in order if names[id] == name]
        groups = [
            id
            for id in same
            if any(categories[other].get("supercategory") == name for other in same if other != id)
            and categories[id].get("supercategory") != name
        ]
        for unused in (*groups, *reversed(same)):
            if unused in names and unused not in used and list(names.values()).count(name) > 1:
                del names[unused]
    check_classes(list(names.values()), where)
    return names


def file_names(image: Record, pattern: FilePattern | None) -> tuple[str, ...]:
    """The files of an image record, in the order of their channels.

    By the pattern of the config, else by a list under ``files`` or ``file_name``, else by ``file_name``, in
    which names may be joined by " + ".

    Raises:
        DataError: what stands there are no names.
    """
    written = image["file_name"]
    if pattern is not None:
        return pattern.names(str(written[0] if isinstance(written, list) and written else written))
    for names in (image.get("files"), written):
        if isinstance(names, list):
            if not names or not all(isinstance(name, str) and name for name in names):
                raise DataError(f"its files are {names!r}; expected names of files")
            return tuple(names)
    return tuple(str(written).split(" + "))


def size_of(image: Record) -> tuple[int, int] | None:
    """Height and width of an image record; None where it does not say.

    Raises:
        DataError: what it says is no number.
    """
    sides = []
    for key in ("height", "width"):
        try:
            side = float(image.get(key) or 0)
        except (TypeError, ValueError):
            side = math.nan
        if not math.isfinite(side):
            raise DataError(f"the {key} is {image[key]!r}; expected pixels")
        sides.append(int(side))
    return (sides[0], sides[1]) if min(sides) > 0 else None


def read_object(annotation: Record, name: str, label: int) -> Object:
    """An annotation as an object; where it has no ``bbox``, with the box around its ``segmentation``.

    Args:
        annotation: the record.
        name: what to call it in messages.
        label: 0 … K-1.

    Raises:
        DataError: it has neither, or what it has are no numbers.
    """
    bbox, area = annotation.get("bbox"), annotation.get("area")
    if not bbox and annotation.get("segmentation"):
        bbox = _around(annotation["segmentation"], name)
    try:
        if not isinstance(bbox, (list, tuple)):  # text would be taken for its digits
            raise TypeError
        x, y, width, height = (float(value) for value in bbox)
        area = None if area is None else float(area)
    except (TypeError, ValueError):
        x = y = width = height = math.nan
    if not math.isfinite(x + y + width + height):
        raise DataError(
            f"{name} has the bbox {bbox!r} and the area {area!r}; expected four numbers, "
            "x y width height, and a number"
        )
    return Object(
        box=(x, y, x + width, y + height),
        extent=(width, height),
        written=(x, y, width, height),
        label=label,
        ignore=flag(annotation.get("iscrowd"), f"iscrowd of {name}"),
        area=area,
        sides=(width, height),
    )


def _around(segmentation: Any, name: str) -> list[float]:
    """The x y width height around polygons or a run-length encoding."""
    try:
        x1, y1, x2, y2 = extent(segmentation)
    except ValueError as error:
        raise DataError(f"{name} has no bbox, and a segmentation that has none: {error}") from error
    return [x1, y1, x2 - x1, y2 - y1]


def official_order(image_ids: Sequence[int | str]) -> np.ndarray:
    """Rank of each image by its id; pycocotools sorts ids, as text where not all are numbers."""
    return np.unique(np.asarray(image_ids), return_inverse=True)[1].reshape(-1)
