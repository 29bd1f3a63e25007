"""COCO: one JSON file of boxes and masks for a folder of images."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdet.data.sources.annotations import (
    LabelBuilder,
    LabelledSource,
    Object,
    check_classes,
    check_on_error,
    read_image_size,
    unknown_class,
)
from jdet.types import DataError, Example


def xywh_to_xyxy(boxes: np.ndarray) -> np.ndarray:
    """COCO's x y width height (corner and size, 0-based) → x1 y1 x2 y2, both [..., 4]."""
    boxes = np.asarray(boxes)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def xyxy_to_xywh(boxes: np.ndarray) -> np.ndarray:
    """The inverse of ``xywh_to_xyxy``."""
    boxes = np.asarray(boxes)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


class CocoSource(LabelledSource):
    """Images, boxes and masks of a COCO annotation file.

    Images keep the order of the file; those without objects are kept. COCO's category ids start
    at 1 and have holes: labels are 0 … K-1, and ``category_ids`` leads back.

    Args:
        annotation_file: ``instances_*.json`` or any file of that form.
        image_root: folder that ``file_name`` is relative to. None: looked for near the annotation
            file, in ``images`` and in a folder named like it (``instances_val2017`` → ``val2017``).
        classes: class names in the order of the labels. None: the categories of the file in the
            order of their ids. Every category that has objects must be in the list; names that the
            file does not know have no objects and get unused ids.
        keep_crowd: keep ``iscrowd`` regions (with ``ignore`` set) or leave them out.
        keep_masks: hand out each object's ``segmentation`` in ``Example.masks``, unchanged.
        on_error: ``"raise"``, or ``"skip"`` to leave out images that are missing; they are listed
            in ``defects``.

    Attributes:
        category_ids: label → COCO category id.
        image_ids: index → COCO image id.

    Raises:
        DataError: the file is missing, not JSON or not of COCO's form; two images, annotations or
            categories share an id; an annotation names an unknown image or category; a category
            with objects is not in ``classes``; images are not found.
    """

    def __init__(
        self,
        annotation_file: str | Path,
        image_root: str | Path | None = None,
        classes: Sequence[str] | None = None,
        *,
        keep_crowd: bool = True,
        keep_masks: bool = True,
        on_error: str = "raise",
    ):
        skip = check_on_error(on_error)
        path = Path(annotation_file)
        self.name = f"COCO {path.name}"
        data = _read_json(path)
        images = _by_id(path, "images", data["images"], ("id", "file_name"))
        categories = _by_id(path, "categories", data["categories"], ("id", "name"))
        annotations = data["annotations"]
        _by_id(path, "annotations", annotations, ("id", "image_id", "category_id", "bbox"))
        if not images:
            raise DataError(f"{path}: `images` is empty")
        self.class_names, self.category_ids = _classes(path, categories, classes)
        label_of = {name: label for label, name in enumerate(self.class_names)}

        objects: dict[Any, list[dict]] = {id: [] for id in images}
        for annotation in annotations:
            if annotation["image_id"] not in objects:
                raise DataError(
                    f"{path}: annotation {annotation['id']} belongs to image "
                    f"{annotation['image_id']}, which `images` does not list"
                )
            category = categories.get(annotation["category_id"])
            if category is None:
                raise DataError(
                    f"{path}: annotation {annotation['id']} has category "
                    f"{annotation['category_id']}; `categories` lists {sorted(categories)}"
                )
            if category["name"] not in label_of:
                where = f"{path}, annotation {annotation['id']}"
                raise unknown_class(category["name"], self.class_names, where)
            if keep_crowd or not annotation.get("iscrowd", 0):
                objects[annotation["image_id"]].append(annotation)

        root = _find_image_root(path, image_root, images.values())
        exists = _Listing()
        builder = LabelBuilder()
        files, image_ids, masks = [], [], []
        for id, image in images.items():
            try:
                file = os.path.join(root, image["file_name"])
                if not exists(file):
                    raise DataError(f"{file} is missing")
                size = _size(image) or read_image_size(file)
                rows = [_object(a, categories, label_of) for a in objects[id]]
            except (TypeError, ValueError) as error:  # a DataError, or a field of the wrong type
                if not skip:
                    raise DataError(f"{path}: image {id}: {error}") from error
                builder.skip(str(id), error)
                continue
            builder.add(str(id), size, rows)
            masks.extend(a.get("segmentation") for a in objects[id])
            files.append(file)
            image_ids.append(id)
        if not files:
            raise DataError(f"{self.name}: no image is left; {len(images)} were skipped")
        self._table = builder.build(self.class_names, _official_order(image_ids))
        self._images = tuple(files)
        self.image_ids = tuple(image_ids)
        self._masks = _Texts(masks) if keep_masks and any(masks) else None

    def _image(self, index: int) -> str:
        return self._images[index]

    def __getitem__(self, index: int) -> Example:
        example = super().__getitem__(index)
        if self._masks is None or example.official is None:
            return example
        rows = range(*self._table.official_offsets[self._position(index) :][:2])
        masks = tuple(self._masks[row] for row in rows)
        kept = tuple(mask for mask, row in zip(masks, rows, strict=True) if self._table.kept[row])
        return example._replace(masks=kept, official=example.official._replace(masks=masks))


class _Texts:
    """JSON values in one string of bytes: no Python object per number, and quick to pickle."""

    def __init__(self, values: Iterable[Any]):
        texts = [json.dumps(value, separators=(",", ":")).encode() for value in values]
        self._ends = np.cumsum([0, *map(len, texts)])
        self._bytes = b"".join(texts)

    def __getitem__(self, index: int) -> Any:
        first, end = self._ends[index : index + 2]
        return json.loads(self._bytes[first:end])


class _Listing:
    """Whether a file exists, from one listing per folder: quicker than 100,000 look-ups."""

    def __init__(self) -> None:
        self._folders: dict[str, set[str]] = {}

    def __call__(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._folders:
            try:
                self._folders[folder] = set(os.listdir(folder or "."))
            except OSError:
                self._folders[folder] = set()
        return name in self._folders[folder]


def _read_json(path: Path) -> dict[str, list[dict]]:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing. Download COCO 2017 with `python data/get_coco.py --root data`, or "
            "name your own COCO annotation file (data/README.md shows its form)."
        ) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path}, {where}: not JSON: {error.msg}") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise DataError(
                f"{path} has no list `{key}`; a COCO detection file holds `images`, `annotations` "
                "and `categories`"
            )
    return data


def _by_id(path: Path, key: str, records: list[dict], fields: tuple[str, ...]) -> dict[Any, dict]:
    """Id → record, after checking that every record has ``fields`` and an id of its own."""
    by_id: dict[Any, dict] = {}
    for position, record in enumerate(records):
        missing = [f for f in fields if not isinstance(record, dict) or f not in record]
        if missing:
            raise DataError(f"{path}: {key}[{position}] has no `{'`, `'.join(missing)}`")
        if not isinstance(record["id"], (int, str)):
            raise DataError(f"{path}: {key}[{position}] has the id {record['id']!r}")
        by_id[record["id"]] = record
    if len(by_id) != len(records):
        counts = Counter(record["id"] for record in records)
        doubles = [str(id) for id, n in counts.items() if n > 1]
        more = f" and {len(doubles) - 10} more" if len(doubles) > 10 else ""
        raise DataError(f"{path}: `{key}` uses these ids twice: {', '.join(doubles[:10])}{more}")
    return by_id


def _classes(
    path: Path, categories: dict[Any, dict], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Class names and category ids by label."""
    for id in categories:
        if not isinstance(id, int):
            raise DataError(f"{path}: category id {id!r} is not an integer")
    ids = sorted(categories)
    names = check_classes([categories[id]["name"] for id in ids], f"{path}, categories")
    if classes is None:
        return names, tuple(ids)
    classes = check_classes(classes, "CocoSource")
    id_of = dict(zip(names, ids, strict=True))
    unused = iter(range(max(ids) + 1, max(ids) + 1 + len(classes)))
    return classes, tuple(id_of[name] if name in id_of else next(unused) for name in classes)


def _official_order(image_ids: Sequence[int | str]) -> np.ndarray:
    """Rank of each image by its id; pycocotools sorts ids, as text where not all are numbers."""
    order = np.unique(np.asarray(image_ids), return_inverse=True)[1]
    return order.reshape(-1)


def _size(image: dict) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    return (int(height), int(width)) if height and width else None


def _object(annotation: dict, categories: dict, label_of: dict[str, int]) -> Object:
    bbox, area = annotation["bbox"], annotation.get("area")
    try:
        x, y, width, height = (float(value) for value in bbox)
        area = None if area is None else float(area)
    except (TypeError, ValueError):
        x = y = width = height = math.nan
    if not math.isfinite(x + y + width + height):
        raise DataError(
            f"annotation {annotation['id']} has the bbox {bbox!r} and the area {area!r}; expected "
            "four numbers, x y width height, and a number"
        )
    return Object(
        box=(x, y, x + width, y + height),
        extent=(width, height),
        written=(x, y, width, height),
        label=label_of[categories[annotation["category_id"]]["name"]],
        ignore=bool(annotation.get("iscrowd", 0)),
        area=area,
        sides=(width, height),
    )


def _find_image_root(path: Path, image_root: str | Path | None, images: Iterable[dict]) -> str:
    """The folder of the images: the first place that holds one of the first images listed."""
    first = [image["file_name"] for image in list(images)[:20]]
    if image_root is not None:
        if not Path(image_root).is_dir():
            raise DataError(f"image_root {image_root} is missing; it should hold {first[0]}")
        return str(image_root)
    split = path.stem.rpartition("_")[2]
    beside, above = path.parent, path.parent.parent
    places = [
        place
        for base in dict.fromkeys((above, beside))
        for place in (base / "images" / split, base / split, base / "images", base)
    ]
    for place in places:
        if any((place / name).is_file() for name in first):
            return str(place)
    raise DataError(
        f"{path}: its images ({first[0]} …) are in none of {', '.join(map(str, places))}. Give "
        "the source `image_root`, or download COCO with `python data/get_coco.py --root data`."
    )
