"""COCO average precision and recall, computed by pycocotools on records built in memory.

Where hotcoco is installed (the extra ``coco-fast``), it computes the same numbers, far faster.

``Example.ignore`` becomes ``iscrowd``: detections inside such a region are neither rewarded nor
penalised, and the region itself need not be found. ``Example.areas`` (mask areas in COCO's own
files) decide between small, medium and large, at 32² and 96² square pixels. Per image and class
pycocotools keeps the 100 best detections; no score threshold is applied here.

Overlaps are those of boxes (``iou_type="bbox"``) or of masks (``"segm"``). With masks, the size class of
an unmatched detection is that of its mask's area, as in MMDetection and Detectron2, which leave the boxes
out of what they hand to pycocotools.

A number that has no ground truth to stand on, such as the AP of small objects in a set without
any, is -1 in pycocotools and ``nan`` here. With objects but no detections every number is 0.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jdet.data.sources.coco import xyxy_to_xywh
from jdet.evaluation import masks as masks_lib
from jdet.types import DataError, Example, ImageDetections

# The order of pycocotools' `stats`.
STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

IOU_TYPES = {"bbox": "coco", "segm": "coco_segm"}
"""What overlaps are measured of, and what the names of the metrics begin with."""

ENGINES = ("hotcoco", "pycocotools")
"""Who can compute, fastest first."""


def default_engine() -> str:
    """The fastest that is installed."""
    return next(name for name in ENGINES if importlib.util.find_spec(name))


class CocoEvaluator:
    """Collects images one by one; ``result`` hands them to pycocotools or hotcoco.

    Attributes:
        class_names: K names, in label order.
        protocol: what the metrics are, in one line.
        per_class: prefix of the metrics that have a value per class, and the name of their mean.
        needs: optional fields of the records that are compared.
    """

    def __init__(self, class_names: Sequence[str], *, iou_type: str = "bbox", engine: str = ""):
        """Starts empty.

        Args:
            class_names: K names, in label order.
            iou_type: overlaps of boxes ("bbox") or of masks ("segm").
            engine: one of ``ENGINES``; "": ``default_engine()``.

        Raises:
            ValueError: there is no such ``iou_type``.
        """
        if iou_type not in IOU_TYPES:
            raise ValueError(f"iou_type={iou_type!r}; it can be one of {', '.join(IOU_TYPES)}")
        self.class_names = tuple(class_names)
        self._type, self._prefix = iou_type, IOU_TYPES[iou_type]
        self._engine = engine or default_engine()
        overlap = "mask IoU" if iou_type == "segm" else "IoU"
        self.protocol = (
            f"pycocotools: {overlap} 0.50:0.95, 100 detections per image and class; crowd ignored"
        )
        self.per_class = {self._prefix: "AP"}
        self.needs = ("masks",) if iou_type == "segm" else ()
        self._objects: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []
        self._sizes: list[tuple[int, int]] = []
        self._evaluated: Any = None

    def add(self, detections: ImageDetections, ground_truth: Example) -> None:
        """Adds one image.

        Args:
            detections: what was found, unthresholded.
            ground_truth: the objects of the same image, boxes in the same pixels.

        Raises:
            ValueError: the two are not of one image.
            DataError: masks are compared, and an object or a detection has none.
        """
        if detections.id != ground_truth.id:
            raise ValueError(f"detections of image {detections.id!r} against {ground_truth.id!r}")
        self._evaluated = None
        size = (0, 0)
        object_masks = found_masks = None
        if self._type == "segm":
            size, object_masks, found_masks = _masks(detections, ground_truth)
        self._sizes.append(size)
        for row, box in enumerate(exact_xywh(ground_truth.boxes)):
            annotation = {
                # Ids count from 1: pycocotools takes a match with object 0 for no match.
                "id": len(self._objects) + 1,
                "image_id": len(self._sizes),
                "category_id": int(ground_truth.labels[row]) + 1,
                "bbox": box.tolist(),
                "area": float(ground_truth.areas[row]),
                "iscrowd": int(ground_truth.ignore[row]),
            }
            if object_masks is not None:
                annotation["segmentation"] = object_masks[row]
            self._objects.append(annotation)
        for row, box in enumerate(exact_xywh(detections.boxes)):
            annotation = {
                "id": len(self._found) + 1,
                "image_id": len(self._sizes),
                "category_id": int(detections.labels[row]) + 1,
                "bbox": box.tolist(),
                "area": float(box[2] * box[3]),
                "iscrowd": 0,
                "score": float(detections.scores[row]),
            }
            if found_masks is not None:
                annotation["segmentation"] = found_masks[row]
                annotation["area"] = masks_lib.area(found_masks[row])
            self._found.append(annotation)

    def result(self) -> dict[str, float]:
        """``coco/AP``, ``coco/AP50``, … (``STATS``) and ``coco/AP/<class>``: 0 … 1, or nan.

        Those of masks begin with ``coco_segm/``.
        """
        evaluation = self._evaluation()
        metrics = {
            f"{self._prefix}/{name}": float("nan") if value < 0 else float(value)
            for name, value in zip(STATS, evaluation.stats, strict=True)
        }
        # [10 IoUs, 101 recalls, K], of all sizes and the 100 best
        precision = np.asarray(evaluation.eval["precision"])[..., 0, 2]
        for label, name in enumerate(self.class_names):
            defined = precision[..., label][precision[..., label] >= 0]
            value = float(defined.mean()) if len(defined) else float("nan")
            metrics[f"{self._prefix}/AP/{name}"] = value
        return metrics

    def curves(self) -> dict[str, dict[str, list[float]]]:
        """Precision over recall of every class that has objects, at the 101 recalls of the protocol.

        Returns:
            By ``coco/precision_recall/<class>``: ``x`` the recalls, ``y`` the precision at IoU 0.50,
            ``mean`` that over all ten IoUs, whose mean is the AP, and ``score`` of the detection at which
            a recall is reached at IoU 0.50 (0 where it is not reached).
        """
        evaluation = self._evaluation()
        precision, score = (
            np.asarray(evaluation.eval[name])[..., 0, 2] for name in ("precision", "scores")
        )
        recalls = np.asarray(evaluation.params.recThrs, float).tolist()
        return {
            f"{self._prefix}/precision_recall/{name}": {
                "x": recalls,
                "y": precision[0, :, label].tolist(),
                "mean": precision[..., label].mean(0).tolist(),
                "score": score[0, :, label].tolist(),
            }
            for label, name in enumerate(self.class_names)
            if precision[0, 0, label] >= 0
        }

    def _evaluation(self) -> Any:
        """The engine, done with all that was collected."""
        if self._evaluated is None:
            objects, found = (self._data_set(rows) for rows in (self._objects, self._found))
            with contextlib.redirect_stdout(io.StringIO()):
                if self._engine == "hotcoco":
                    import hotcoco

                    made = hotcoco.COCOeval(hotcoco.COCO(objects), hotcoco.COCO(found), self._type)
                else:
                    kind: Any = self._type
                    made = COCOeval(_index(objects), _index(found), kind)
                made.evaluate()
                made.accumulate()
                made.summarize()
            self._evaluated = made
        return self._evaluated

    def _data_set(self, annotations: list[dict[str, Any]]) -> dict[str, Any]:
        """All images and categories with these annotations, as in COCO's files."""
        return {
            "images": [
                {"id": i, "height": height, "width": width}
                for i, (height, width) in enumerate(self._sizes, 1)
            ],
            "categories": [{"id": i, "name": n} for i, n in enumerate(self.class_names, 1)],
            "annotations": annotations,
        }


def _masks(
    detections: ImageDetections, ground_truth: Example
) -> tuple[tuple[int, int], list[Any], list[Any]]:
    """Height and width of an image, and the run-length encodings of its objects and detections.

    The size is what a mask says; where only polygons are there, they are compared with nothing, and any
    size will do.

    Raises:
        DataError: an object or a detection has no mask.
    """
    parts = []
    for who, masks, rows, remedy in (
        ("object", ground_truth.masks, ground_truth.boxes, "the data set has boxes alone"),
        ("detection", detections.masks, detections.boxes, "the detector makes none"),
    ):
        masks = list(masks) if masks is not None else [None] * len(rows)
        if len(masks) != len(rows) or any(mask is None for mask in masks):
            raise DataError(
                f"image {ground_truth.id}: the metric of masks (config.eval.metrics 'coco_segm') finds "
                f"{who}s without a mask; {remedy}: leave it out"
            )
        parts.append(masks)
    objects, found = parts
    sizes = [mask["size"] for mask in (*found, *objects) if isinstance(mask, dict)]
    height, width = sizes[0] if sizes else (1, 1)
    try:
        objects = [masks_lib.to_rle(mask, height, width) for mask in objects]
    except ValueError as error:
        raise DataError(f"image {ground_truth.id}: {error}") from error
    return (height, width), objects, found


def _index(data_set: Any) -> COCO:
    coco = COCO()
    coco.dataset = data_set
    coco.createIndex()
    return coco


def exact_xywh(boxes: np.ndarray) -> np.ndarray:
    """Boxes [n, 4] as x y width height in float64, where no difference of float32 numbers is rounded."""
    return xyxy_to_xywh(np.asarray(boxes, np.float64))
