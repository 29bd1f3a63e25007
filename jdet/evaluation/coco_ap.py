"""COCO average precision and recall as pycocotools computes them, on records built in memory.

hotcoco computes the same numbers, far faster; pycocotools is there to check them.

Images are taken in the official order, by COCO image id, whatever the order in which they are added: of
equal scores in several images the first counts first. The objects are those of the label file as it is
(``Example.official``), with boxes over the border, without area and with areas in float64, where the
source has them. Detections that are not finite numbers are left out.

``Example.ignore`` becomes ``iscrowd``: detections inside such a region are neither rewarded nor
penalised, and the region itself need not be found. ``Example.areas`` (mask areas in COCO's own
files) decide between small, medium and large, at 32² and 96² square pixels. Per image and class
pycocotools keeps the 100 best detections; no score threshold is applied here.

Overlaps are those of boxes (``iou_type="bbox"``) or of masks (``"segm"``). With masks, the size class of
an unmatched detection is that of its mask's area, as in MMDetection and Detectron2, which leave the boxes
out of what they hand to pycocotools. An object without a mask, among others that have one, is as a crowd of
which the mask is the whole box.

A number that has no ground truth to stand on, such as the AP of small objects in a set without
any, is -1 in pycocotools and ``nan`` here. With objects but no detections every number is 0.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jdet.config import ranges
from jdet.data.segmentation import box_to_rle, to_rle
from jdet.evaluation import masks as masks_lib
from jdet.evaluation.official import exact_xywh, finite, official_of, official_order
from jdet.types import DataError, Example, ImageDetections, OfficialObjects, require

# The order of pycocotools' `stats`, at its own numbers of detections.
STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

IOU_TYPES = {"bbox": "coco", "segm": "coco_segm"}
"""What overlaps are measured of, and what the names of the metrics begin with."""

ENGINES = ("hotcoco", "pycocotools")
"""Who can compute; the first does where nothing else is asked for."""


class CocoEvaluator:
    """Collects images one by one; ``result`` hands them to hotcoco or pycocotools.

    Attributes:
        class_names: K names, in label order.
        protocol: what the metrics are, in one line.
        per_class: prefix of the metrics that have a value per class, and the name of their mean.
        needs: optional fields of the records that are compared.
    """

    settings = "coco"
    """The group of ``config.eval`` whose keys the constructor takes."""

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        iou_type: str = "bbox",
        engine: str = ENGINES[0],
        max_detections: Sequence[int] = (1, 10, 100),
        recall_levels: int = 101,
    ):
        """Starts empty.

        Args:
            class_names: K names, in label order.
            iou_type: overlaps of boxes ("bbox") or of masks ("segm").
            engine: one of ``ENGINES``.
            max_detections: three rising numbers of detections per image and class at which the recall is
                measured; all but that of the first two is measured at the last. For an AP at another
                number than 100, which ``COCOeval.summarize`` itself does not give.
            recall_levels: evenly spaced recalls from 0 to 1 over which precision is averaged.

        Raises:
            ValueError: there is no such ``iou_type``.
            ConfigError: a number is out of range.
        """
        given = {"max_detections": tuple(max_detections), "recall_levels": recall_levels}
        ranges.check_fields(type(self), given, "eval.coco")
        few, more, most = given["max_detections"] if len(max_detections) == 3 else (0, 0, 0)
        require(
            few < more < most, "eval.coco.max_detections", max_detections, "three rising numbers"
        )
        if iou_type not in IOU_TYPES:
            raise ValueError(f"iou_type={iou_type!r}; it can be one of {', '.join(IOU_TYPES)}")
        self.class_names = tuple(class_names)
        self._type, self._prefix = iou_type, IOU_TYPES[iou_type]
        self._engine = engine
        self._max_detections, self._recall_levels = [few, more, most], recall_levels
        overlap = "mask IoU" if iou_type == "segm" else "IoU"
        recalls = f"; {recall_levels} recalls" if recall_levels != 101 else ""
        self.protocol = (
            f"pycocotools: {overlap} 0.50:0.95, {most} detections per image and class; "
            f"crowd ignored{recalls}"
        )
        self.per_class = {self._prefix: "AP"}
        self.needs = ("masks",) if iou_type == "segm" else ()
        self._images: list[_Image] = []
        self._boxes_alone = 0
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
        detections = finite(detections)
        official = official_of(ground_truth)
        size = (0, 0)
        object_masks = found_masks = None
        if self._type == "segm":
            size, object_masks, found_masks = _masks(detections, ground_truth.id, official)
        objects, found = [], []
        for row, box in enumerate(official.xywh.tolist()):
            annotation = {
                "category_id": int(official.labels[row]) + 1,
                "bbox": box,
                "area": float(official.areas[row]),
                "iscrowd": int(official.ignore[row]),
            }
            if object_masks is not None:
                mask = object_masks[row]
                if mask is None:  # known by its box alone: what lies in it may be right
                    annotation["iscrowd"], self._boxes_alone = 1, self._boxes_alone + 1
                    mask = box_to_rle(box, *size)
                annotation["segmentation"] = mask
            objects.append(annotation)
        for row, box in enumerate(exact_xywh(detections.boxes)):
            annotation = {
                "category_id": int(detections.labels[row]) + 1,
                "bbox": box.tolist(),
                "area": float(box[2] * box[3]),
                "iscrowd": 0,
                "score": float(detections.scores[row]),
            }
            if found_masks is not None:
                annotation["segmentation"] = found_masks[row]
                annotation["area"] = masks_lib.area(found_masks[row])
            found.append(annotation)
        place = (None if ground_truth.official is None else official.rank, ground_truth.id)
        self._images.append(_Image(place, size, objects, found))

    def result(self) -> dict[str, float]:
        """``coco/AP``, ``coco/AP50``, … (``STATS``) and ``coco/AP/<class>``: 0 … 1, or nan.

        Those of masks begin with ``coco_segm/``.
        """
        if self._boxes_alone:
            logging.log_first_n(
                logging.WARNING,
                "%d objects without a mask count neither for nor against the metrics of masks",
                1,
                self._boxes_alone,
            )
        # [10 IoUs, recalls, K, sizes, numbers of detections] and the same without recalls
        precision, recall = (
            np.asarray(self._evaluation().eval[name]) for name in ("precision", "recall")
        )
        few, more, most = self._max_detections
        # As in ``COCOeval.summarize``: sizes are all, small, medium, large.
        parts = {
            "AP": precision[..., 0, 2],
            "AP50": precision[0, ..., 0, 2],
            "AP75": precision[5, ..., 0, 2],
            **{f"AP{size}": precision[..., i, 2] for i, size in enumerate("sml", 1)},
            **{f"AR{number}": recall[..., 0, i] for i, number in enumerate((few, more, most))},
            **{f"AR{size}": recall[..., i, 2] for i, size in enumerate("sml", 1)},
        }
        metrics = {f"{self._prefix}/{name}": _mean(part) for name, part in parts.items()}
        for label, name in enumerate(self.class_names):
            metrics[f"{self._prefix}/AP/{name}"] = _mean(precision[..., label, 0, 2])
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

    def outcomes(self, iou: float = 0.5) -> dict[str, dict[str, list[float]]]:
        """Which detections of each class are right at an overlap, best first.

        Those that count neither way, as in crowds, and those beyond ``max_detections`` are left out.

        Args:
            iou: one of the ten overlaps, 0.50, 0.55 … 0.95.

        Returns:
            By ``coco/outcomes/<class>``: ``score`` and ``right`` (1: true positive, 0: false positive) of
            every detection, and ``objects``, a list with the number of objects there were to find.

        Raises:
            ValueError: the protocol has no such overlap.
        """
        evaluation = self._evaluation()
        (rows,) = np.isclose(evaluation.params.iouThrs, iou).nonzero()
        if not len(rows):
            raise ValueError(f"iou={iou}; the protocol measures at 0.50, 0.55 … 0.95")
        whole, found = list(evaluation.params.areaRng[0]), {}
        of_all_sizes = [x for x in evaluation.evalImgs if x and list(x["aRng"]) == whole]
        of_all_sizes.sort(key=lambda one: one["image_id"])
        for label, name in enumerate(self.class_names, 1):
            each = [one for one in of_all_sizes if one["category_id"] == label]
            scores, right, ignored = (
                np.concatenate([np.zeros(0), *(np.asarray(x[key], float)[row] for x in each)])
                for key, row in (("dtScores", ...), ("dtMatches", rows[0]), ("dtIgnore", rows[0]))
            )
            kept = [i for i in np.argsort(-scores, kind="stable") if not ignored[i]]
            objects = sum(int((np.asarray(one["gtIgnore"]) == 0).sum()) for one in each)
            found[f"{self._prefix}/outcomes/{name}"] = {
                "score": scores[kept].tolist(),
                "right": (right[kept] > 0).astype(float).tolist(),
                "objects": [float(objects)],
            }
        return found

    def _evaluation(self) -> Any:
        """The engine, done with all that was collected."""
        if self._evaluated is None:
            order = official_order([image.place for image in self._images])
            images = [self._images[i] for i in order]
            objects = self._data_set(images, [image.objects for image in images])
            found = self._data_set(images, [image.found for image in images])
            with contextlib.redirect_stdout(io.StringIO()):
                if self._engine == "hotcoco":
                    import hotcoco

                    made = hotcoco.COCOeval(hotcoco.COCO(objects), hotcoco.COCO(found), self._type)
                else:
                    kind: Any = self._type
                    made = COCOeval(_index(objects), _index(found), kind)
                made.params.maxDets = self._max_detections
                made.params.recThrs = np.linspace(0, 1, self._recall_levels).tolist()
                made.evaluate()
                made.accumulate()
            self._evaluated = made
        return self._evaluated

    def _data_set(
        self, images: Sequence[_Image], annotations: Sequence[Sequence[dict[str, Any]]]
    ) -> dict[str, Any]:
        """All images and categories with these annotations of each image, as in COCO's files."""
        of_image = ((i, one) for i, own in enumerate(annotations, 1) for one in own)
        return {
            "images": [
                {"id": i, "height": image.size[0], "width": image.size[1]}
                for i, image in enumerate(images, 1)
            ],
            "categories": [{"id": i, "name": n} for i, n in enumerate(self.class_names, 1)],
            # Ids count from 1: pycocotools takes a match with object 0 for no match.
            "annotations": [
                {"id": i, "image_id": image, **one} for i, (image, one) in enumerate(of_image, 1)
            ],
        }


def _mean(values: np.ndarray) -> float:
    """Of what is defined, that is, not -1; nan where nothing is."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else float("nan")


class _Image(NamedTuple):
    """What was added of an image.

    Attributes:
        place: as ``official_order`` takes it.
        size: height and width of its masks.
        objects: annotations without ids.
        found: detections, likewise.
    """

    place: tuple[int | None, str]
    size: tuple[int, int]
    objects: list[dict[str, Any]]
    found: list[dict[str, Any]]


def _masks(
    detections: ImageDetections, name: str, official: OfficialObjects
) -> tuple[tuple[int, int], list[Any], list[Any]]:
    """Height and width of an image, and the run-length encodings of its objects and detections.

    The size is what a mask says; where only polygons are there, they are compared with nothing, and any
    size will do. An object without a mask, among others that have one, has None.

    Raises:
        DataError: no object or no detection has a mask, or one cannot be read.
    """
    for who, masks, rows, remedy in (
        ("object", official.masks, official.xywh, "the data set has boxes alone"),
        ("detection", detections.masks, detections.boxes, "the detector makes none"),
    ):
        if len(rows) and (masks is None or len(masks) != len(rows)):
            raise DataError(
                f"image {name}: the metric of masks (config.eval.metrics 'coco_segm') finds "
                f"{who}s without a mask; {remedy}: leave it out"
            )
    objects, found = list(official.masks or ()), list(detections.masks or ())
    sizes = [mask["size"] for mask in (*found, *objects) if isinstance(mask, dict)]
    height, width = sizes[0] if sizes else (1, 1)
    try:
        objects = [None if mask is None else to_rle(mask, height, width) for mask in objects]
    except ValueError as error:
        raise DataError(f"image {name}: {error}") from error
    return (height, width), objects, found


def _index(data_set: Any) -> COCO:
    coco = COCO()
    coco.dataset = data_set
    coco.createIndex()
    return coco


class CocoInstancesEvaluator:
    """AP of boxes and of masks in one pass: ``coco/…`` and ``coco_segm/…`` of ``CocoEvaluator``, together.

    Attributes:
        class_names: K names, in label order.
        protocol: what the metrics are, in one line.
        per_class: as in ``CocoEvaluator``, of both.
        needs: optional fields of the records that are compared.
    """

    settings = "coco"
    needs = ("masks",)

    def __init__(self, class_names: Sequence[str], **settings: Any):
        """Starts empty.

        Args:
            class_names: K names, in label order.
            **settings: as in ``CocoEvaluator``.
        """
        self.class_names = tuple(class_names)
        self._parts = [CocoEvaluator(class_names, iou_type=kind, **settings) for kind in IOU_TYPES]
        self.protocol = "; ".join(dict.fromkeys(part.protocol for part in self._parts))
        self.per_class = {name: mean for p in self._parts for name, mean in p.per_class.items()}

    def add(self, detections: ImageDetections, ground_truth: Example) -> None:
        """As in ``CocoEvaluator``."""
        for part in self._parts:
            part.add(detections, ground_truth)

    def result(self) -> dict[str, float]:
        """The metrics of boxes, then those of masks."""
        return {name: value for part in self._parts for name, value in part.result().items()}

    def curves(self) -> dict[str, dict[str, list[float]]]:
        """Those of both."""
        return {name: curve for part in self._parts for name, curve in part.curves().items()}

    def outcomes(self, iou: float = 0.5) -> dict[str, dict[str, list[float]]]:
        """Those of both."""
        return {name: one for part in self._parts for name, one in part.outcomes(iou).items()}
