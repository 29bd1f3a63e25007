"""Detections as COCO result files, so that they can be submitted or scored again.

Two files belong together: ``detections.json``, a COCO result list, and ``images.json``, which holds the
images and categories that the list refers to, in COCO's form. Image ids are, in this order, those that the
source declares (``image_ids``), the images' names as numbers where all consist of digits, and places in the
source counted from 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdet.atomic_files import write_json, write_text
from jdet.data.sources.coco import xywh_to_xyxy
from jdet.evaluation.official import exact_xywh
from jdet.types import DataError, ImageDetections, Source

DETECTIONS, IMAGES = "detections.json", "images.json"


class Results:
    """Keeps the detections of all images of an evaluation, as arrays, until they are written."""

    def __init__(self, source: Source):
        """Starts empty.

        Args:
            source: of the images.
        """
        self._source = source
        self._found: dict[int, ImageDetections] = {}

    def add(self, index: int, detections: ImageDetections) -> None:
        """Takes one image.

        Args:
            index: of the image in the source.
            detections: what was found, in pixels of the original image.
        """
        self._found[index] = detections

    def write(
        self, folder: Path, category_ids: Sequence[int | str], *, name: str = DETECTIONS
    ) -> None:
        """Writes both files, each whole or not at all.

        Args:
            folder: where to.
            category_ids: K ids, in label order.
            name: of the file of detections.
        """
        order = sorted(self._found)
        names = {index: self._found[index].id for index in order}
        ids = image_ids(names, getattr(self._source, "image_ids", None))
        images = [{"id": ids[index], "name": names[index]} for index in order]
        write_index(folder, images, category_ids, self._source.class_names)
        write_detections(
            folder / name,
            (to_coco_json(self._found[index], ids[index], category_ids) for index in order),
        )


def image_ids(
    names: Mapping[int, str], own: Sequence[int | str] | None = None
) -> dict[int, int | str]:
    """The id of every image in COCO files.

    Args:
        names: index in the source → name, without folder and suffix where it is that of a file.
        own: the data set's own id of each index of the source; None or empty where it declares none.

    Returns:
        Index → id.
    """
    if own:
        return {index: own[index] for index in names}
    if all(name.isascii() and name.isdigit() for name in names.values()):
        numbers = {index: int(name) for index, name in names.items()}
        if len(set(numbers.values())) == len(numbers):
            return dict(numbers)
    return {index: index + 1 for index in names}


def category_ids(
    class_names: Sequence[str], *declared: Sequence[int | str] | None
) -> tuple[int | str, ...]:
    """The id of each class in COCO files: the first that is declared, else 1 … K."""
    for ids in declared:
        if ids:
            return tuple(ids)
    return tuple(range(1, len(class_names) + 1))


def to_coco_json(
    image: ImageDetections, image_id: int | str, category_ids: Sequence[int | str]
) -> list[dict[str, Any]]:
    """The detections of an image as records of a COCO result file.

    Args:
        image: detections in original pixels.
        image_id: the data set's own id of the image.
        category_ids: the data set's own id of each label.

    Returns:
        One dict per detection: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in 0-based
        pixels, three decimals), ``score`` (six) and, where there are masks, ``segmentation`` (run-length
        encoding). pycocotools takes the area of a detection from its ``bbox`` where the file has one;
        leave it out to score masks by their own.
    """
    boxes = np.round(exact_xywh(image.boxes), 3).tolist()
    scores = np.round(np.asarray(image.scores, np.float64), 6).tolist()
    records = [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for box, label, score in zip(boxes, image.labels.tolist(), scores, strict=True)
    ]
    if image.masks is not None:
        for record, mask in zip(records, image.masks, strict=True):
            record["segmentation"] = mask
    return records


def read(path: Path) -> tuple[dict[int | str, ImageDetections], dict[str, Any]]:
    """Reads a COCO result list, and the file of images beside it.

    Returns:
        By image id in the order of the images, what was found in each, best first, with what the files
        round; and ``images.json``.

    Raises:
        DataError: a file is missing or not of this form.
    """
    try:
        records, index = (
            json.loads(file.read_text(encoding="utf-8")) for file in (path, path.parent / IMAGES)
        )
        labels = {category["id"]: i for i, category in enumerate(index["categories"])}
        found: dict[int | str, list[Any]] = {image["id"]: [] for image in index["images"]}
        for record in records:
            found[record["image_id"]].append(record)
        names = {image["id"]: _name(image) for image in index["images"]}
        return {id: _of_records(names[id], some, labels) for id, some in found.items()}, index
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename} is missing; evaluations and predictions write {DETECTIONS} and {IMAGES}"
        ) from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} and {IMAGES} beside it are no result list of COCO's form: {error!r}"
        ) from error


def _name(image: Mapping[str, Any]) -> str:
    return image["name"] if "name" in image else image["file_name"]


def _of_records(
    name: str, records: Sequence[Mapping[str, Any]], labels: Mapping[int | str, int]
) -> ImageDetections:
    boxes = xywh_to_xyxy(np.array([record["bbox"] for record in records], float).reshape(-1, 4))
    masks = [record.get("segmentation") for record in records]
    scores = np.array([record["score"] for record in records], np.float32)
    return ImageDetections(
        id=name,
        boxes=boxes.astype(np.float32),
        scores=scores,
        labels=np.array([labels[record["category_id"]] for record in records], np.int32),
        masks=tuple(masks) if masks and None not in masks else None,
    ).select(np.argsort(-scores, kind="stable"))


def write_detections(path: Path, images: Iterable[Sequence[Mapping[str, Any]]]) -> None:
    """Writes a COCO result list, one line per image that has detections, whole or not at all.

    Args:
        path: the file; its folder is made if missing.
        images: for every image, its records.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(records)[1:-1] for records in images if records)
    write_text(path, "[" + ",\n".join(lines) + "]\n")


def write_index(
    folder: Path,
    images: Sequence[Mapping[str, Any]],
    category_ids: Sequence[int | str],
    class_names: Sequence[str],
    **more: Any,
) -> None:
    """Writes the images and categories that a COCO result list refers to.

    Args:
        folder: where ``images.json`` goes.
        images: one record per image, with its ``id``.
        category_ids: K ids, in label order.
        class_names: K names.
        **more: further entries of the file.
    """
    classes = zip(category_ids, class_names, strict=True)
    categories = [{"id": number, "name": name} for number, name in classes]
    folder.mkdir(parents=True, exist_ok=True)
    held = {**more, "images": list(images), "categories": categories, "annotations": []}
    write_json(folder / IMAGES, held)
