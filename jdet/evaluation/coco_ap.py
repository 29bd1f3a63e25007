"""COCO average precision and recall, computed by pycocotools on records built in memory.

Where hotcoco is installed (the extra ``coco-fast``), it computes the same numbers, far faster.

``Example.ignore`` becomes ``iscrowd``: detections inside such a region are neither rewarded nor
penalised, and the region itself need not be found. ``Example.areas`` (mask areas in COCO's own
files) decide between small, medium and large, at 32² and 96² square pixels. Per image and class
pycocotools keeps the 100 best detections; no score threshold is applied here.

A number that has no ground truth to stand on, such as the AP of small objects in a set without
any, is -1 in pycocotools and ``nan`` here. With objects but no detections every number is 0.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jdet.data.sources.coco import xyxy_to_xywh
from jdet.types import Example, ImageDetections

# The order of pycocotools' `stats`.
STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


ENGINES = ("hotcoco", "pycocotools")
"""Who can compute, fastest first."""


def default_engine() -> str:
    """The fastest that is installed."""
    return next(name for name in ENGINES if importlib.util.find_spec(name))


class CocoEvaluator:
    """Collects images one by one; ``result`` hands them to pycocotools or hotcoco."""

    def __init__(self, class_names: Sequence[str], engine: str = ""):
        """Starts empty.

        Args:
            class_names: K names, in label order.
            engine: one of ``ENGINES``; "": ``default_engine()``.
        """
        self.class_names = tuple(class_names)
        self._engine = engine or default_engine()
        self._objects: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []
        self._images = 0

    def add(self, detections: ImageDetections, ground_truth: Example) -> None:
        """Adds one image.

        Args:
            detections: what was found, unthresholded.
            ground_truth: the objects of the same image, boxes in the same pixels.

        Raises:
            ValueError: the two are not of one image.
        """
        if detections.id != ground_truth.id:
            raise ValueError(f"detections of image {detections.id!r} against {ground_truth.id!r}")
        self._images += 1
        # Ids count from 1: pycocotools takes a match with object 0 for no match.
        for box, label, ignore, area in zip(
            _exact_xywh(ground_truth.boxes),
            ground_truth.labels,
            ground_truth.ignore,
            ground_truth.areas,
            strict=True,
        ):
            self._objects.append(
                {
                    "id": len(self._objects) + 1,
                    "image_id": self._images,
                    "category_id": int(label) + 1,
                    "bbox": box.tolist(),
                    "area": float(area),
                    "iscrowd": int(ignore),
                }
            )
        for box, label, score in zip(
            _exact_xywh(detections.boxes), detections.labels, detections.scores, strict=True
        ):
            self._found.append(
                {
                    "id": len(self._found) + 1,
                    "image_id": self._images,
                    "category_id": int(label) + 1,
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": 0,
                    "score": float(score),
                }
            )

    def result(self) -> dict[str, float]:
        """``coco/AP``, ``coco/AP50``, … (``STATS``) and ``coco/AP/<class>``: 0 … 1, or nan."""
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = self._evaluation()
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        metrics = {
            f"coco/{name}": float("nan") if value < 0 else float(value)
            for name, value in zip(STATS, evaluation.stats, strict=True)
        }
        # [10 IoUs, 101 recalls, K], of all sizes and the 100 best
        precision = np.asarray(evaluation.eval["precision"])[..., 0, 2]
        for label, name in enumerate(self.class_names):
            defined = precision[..., label][precision[..., label] >= 0]
            metrics[f"coco/AP/{name}"] = float(defined.mean()) if len(defined) else float("nan")
        return metrics

    def _evaluation(self) -> Any:
        """The engine, with all that was collected."""
        objects, found = (self._data_set(rows) for rows in (self._objects, self._found))
        if self._engine == "hotcoco":
            import hotcoco

            return hotcoco.COCOeval(hotcoco.COCO(objects), hotcoco.COCO(found), "bbox")
        return COCOeval(_index(objects), _index(found), "bbox")

    def _data_set(self, annotations: list[dict[str, Any]]) -> dict[str, Any]:
        """All images and categories with these annotations, as in COCO's files."""
        return {
            "images": [{"id": i + 1} for i in range(self._images)],
            "categories": [{"id": i + 1, "name": n} for i, n in enumerate(self.class_names)],
            "annotations": annotations,
        }


def _index(data_set: Any) -> COCO:
    coco = COCO()
    coco.dataset = data_set
    coco.createIndex()
    return coco


def to_coco_json(
    images: Iterable[ImageDetections],
    *,
    category_ids: Sequence[int] | None = None,
    image_ids: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """Detections as the list that COCO's result files hold.

    Args:
        images: detections in original pixels.
        category_ids: the data set's own id of each label; label + 1 if None.
        image_ids: the data set's own id of each image's ``id``; if None, the ``id`` itself, as a
            number where it consists of digits.

    Returns:
        One dict per detection: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in
        0-based pixels, three decimals) and ``score`` (six).
    """
    records = []
    for image in images:
        if image_ids is not None:
            image_id: int | str = image_ids[image.id]
        else:
            image_id = int(image.id) if image.id.isdecimal() else image.id
        for box, label, score in zip(
            _exact_xywh(image.boxes), image.labels, image.scores, strict=True
        ):
            records.append(
                {
                    "image_id": image_id,
                    "category_id": int(label) + 1 if category_ids is None else category_ids[label],
                    "bbox": [round(v, 3) for v in box.tolist()],
                    "score": round(float(score), 6),
                }
            )
    return records


def _exact_xywh(boxes: np.ndarray) -> np.ndarray:
    """In float64, where the difference of two float32 coordinates has no rounding."""
    return xyxy_to_xywh(boxes.astype(np.float64))
