"""Average precision by the PASCAL VOC development kit's protocol (VOCevaldet.m), vectorised.

What the kit does, and this file with it:

* Detections of a class are sorted by score over the whole set; equal scores keep the order of the
  images in the split, whatever the order in which they are added, and within an image that in which
  they were found. Those that are not finite numbers are left out.
* The objects are those of the label file as it is (``Example.official``), where the source has them.
* Each is compared with the object of its class and image that it overlaps most (the first of
  equals), found or not. It can be right when that overlap is **at or above** the threshold: the
  kit's own test is ``ovmax>=VOCopts.minoverlap``; widespread Python ports use ``>``, which differs
  only at exact equality.
* The first detection of an object is a true positive, every further one a false positive.
  A detection whose best object is difficult is neither, and difficult objects are not counted.
* Boxes are 1-based inclusive pixels, ``width = xmax - xmin + 1``. jdet's continuous boxes become
  such pixels as ``xmin = x1 + 1, xmax = x2``, hence ``width = x2 - x1`` and the same for
  intersections: the kit's "+1" *is* continuous arithmetic on jdet's boxes (``pixel_offset = 0``).
  ``pixel_offset = 1`` is for inclusive coordinates that were never converted.
* VOC2007 averages the best precision at recalls 0, 0.1, …, 1; from VOC2010 on, AP is the area under
  the precision curve made monotone. The eleven recalls are ``RECALL_LEVELS`` in float64, where 0.3,
  0.6 and 0.7 lie one rounding above k / 10: a curve whose recall is exactly 3 / 10 does not reach
  the fourth of them. The Python ports that most published numbers come from behave so (MATLAB's
  ``0:0.1:1`` does at 0.3 alone); on few objects it moves an AP by up to 1 / 11.

A class without a countable object has no AP: ``nan``, left out of the mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from jdet.config import ranges
from jdet.data.sources.coco import xywh_to_xyxy
from jdet.evaluation.official import finite, official_of, official_order
from jdet.types import Example, ImageDetections

RECALL_LEVELS = np.arange(11) * 0.1


class VocEvaluator:
    """Collects images one by one and computes AP per class and its mean, in both VOC variants.

    Matching happens image by image, so memory grows by a few numbers per detection.

    Attributes:
        class_names: K names, in label order.
        protocol: what the metrics are, in one line.
        per_class: prefixes of the metrics that have a value per class, and the names of their means.
    """

    per_class = {"voc07": "mAP", "voc12": "mAP"}

    def __init__(
        self, class_names: Sequence[str], *, iou_threshold: float = 0.5, pixel_offset: float = 0.0
    ):
        """Starts empty.

        Args:
            class_names: K names, in label order.
            iou_threshold: overlap at or above which a detection can be right.
            pixel_offset: added to every width and height: 0 for continuous boxes (jdet's), 1 for
                boxes that still are inclusive pixels.

        Raises:
            ConfigError: a number is out of range.
        """
        given = {"iou_threshold": iou_threshold, "pixel_offset": pixel_offset}
        ranges.check_fields(type(self), given, "VocEvaluator")
        self.class_names = tuple(class_names)
        self.protocol = (
            f"VOC devkit: IoU >= {iou_threshold:g}; voc07 is 11-point, voc12 the area; difficult objects "
            "ignored"
        )
        self.iou_threshold = iou_threshold
        self.pixel_offset = pixel_offset
        self._matches: list[tuple[np.ndarray, ...]] = []  # scores, labels, overlaps, objects
        self._places: list[tuple[int | None, str]] = []
        self._labels: list[np.ndarray] = []  # of all objects
        self._ignore: list[np.ndarray] = []
        self._objects = 0

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
        detections, official = finite(detections), official_of(ground_truth)
        overlaps, objects = _best_objects(
            np.asarray(detections.boxes, np.float64).reshape(-1, 4),
            np.asarray(detections.labels),
            xywh_to_xyxy(official.xywh),
            np.asarray(official.labels),
            self.pixel_offset,
        )
        self._matches.append(
            (
                np.asarray(detections.scores),
                np.asarray(detections.labels),
                overlaps,
                objects + self._objects,
            )
        )
        self._places.append(
            (None if ground_truth.official is None else official.rank, ground_truth.id)
        )
        self._labels.append(np.asarray(official.labels))
        self._ignore.append(np.asarray(official.ignore, bool))
        self._objects += len(official.labels)

    def average_precisions(self) -> tuple[np.ndarray, np.ndarray]:
        """AP of every class.

        Returns:
            AP of VOC2007 (11 points) and of VOC2010-12 (area), float64 [K] each; nan where a class
            has no countable object.
        """
        eleven, area = [], []
        for correct, _, positives in self._ranked():
            eleven.append(eleven_point_ap(correct, positives))
            area.append(area_ap(correct, positives))
        return np.array(eleven), np.array(area)

    def curves(self) -> dict[str, dict[str, list[float]]]:
        """Precision over recall of every class that has countable objects, at each object that is found.

        Returns:
            By ``voc/precision_recall/<class>``: ``x`` the recall once an object is found, ``y`` the
            precision there, and ``score`` of the detection that finds it.
        """
        found = {}
        for name, (correct, scores, positives) in zip(
            self.class_names, self._ranked(), strict=True
        ):
            if positives:
                hits = np.flatnonzero(correct)
                count = np.arange(1, len(hits) + 1)
                found[f"voc/precision_recall/{name}"] = {
                    "x": (count / positives).tolist(),
                    "y": (count / (hits + 1)).tolist(),
                    "score": scores[hits].astype(float).tolist(),
                }
        return found

    def outcomes(self) -> dict[str, dict[str, list[float]]]:
        """Which detections of each class are right, best first; those of difficult objects are left out.

        Returns:
            By ``voc/outcomes/<class>``: ``score`` and ``right`` (1: true positive, 0: false positive) of
            every detection, and ``objects``, a list with the number of objects there were to find.
        """
        return {
            f"voc/outcomes/{name}": {
                "score": scores.astype(float).tolist(),
                "right": correct.astype(float).tolist(),
                "objects": [float(positives)],
            }
            for name, (correct, scores, positives) in zip(
                self.class_names, self._ranked(), strict=True
            )
        }

    def _ranked(self) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        """Detections of each class best first: whether each is right bool [d], its score, and positives.

        Those that are neither right nor wrong leave the curve as it is, so they are not among them.
        """
        matches = [self._matches[i] for i in official_order(self._places)]
        scores, labels, overlaps, objects = (
            np.concatenate([m[i] for m in matches] or [np.zeros(0)]) for i in range(4)
        )
        object_labels = np.concatenate(self._labels or [np.zeros(0, int)])
        ignore = np.concatenate(self._ignore or [np.zeros(0, bool)])

        order = np.argsort(-scores, kind="stable")
        scores, labels, objects = scores[order], labels[order], objects[order].astype(int)
        hit = overlaps[order] >= self.iou_threshold
        neither = np.zeros(len(order), bool)
        neither[hit] = ignore[objects[hit]]
        candidates = np.flatnonzero(hit & ~neither)
        first = np.unique(objects[candidates], return_index=True)[1]
        correct = np.zeros(len(order), bool)
        correct[candidates[first]] = True

        for label in range(len(self.class_names)):
            rows = (labels == label) & ~neither
            yield correct[rows], scores[rows], int(np.sum((object_labels == label) & ~ignore))

    def result(self) -> dict[str, float]:
        """``voc07/mAP``, ``voc07/AP/<class>`` and the same under ``voc12``: 0 … 1, or nan."""
        metrics = {}
        for variant, aps in zip(("voc07", "voc12"), self.average_precisions(), strict=True):
            defined = aps[~np.isnan(aps)]
            metrics[f"{variant}/mAP"] = float(defined.mean()) if len(defined) else float("nan")
            for name, ap in zip(self.class_names, aps, strict=True):
                metrics[f"{variant}/AP/{name}"] = float(ap)
        return metrics


def eleven_point_ap(correct: np.ndarray, positives: int) -> float:
    """Mean over ``RECALL_LEVELS`` of the best precision at that recall or above (VOC2007).

    Args:
        correct: bool [d], detections of one class, best first: true or false positive.
        positives: number of objects there were to find.

    Returns:
        AP in 0 … 1; nan without objects.
    """
    if positives == 0:
        return float("nan")
    found, envelope = _precision_envelope(correct)
    rows = np.searchsorted(found / positives, RECALL_LEVELS)  # the first that reaches the level
    return float(np.append(envelope, 0.0)[rows].sum() / 11)


def area_ap(correct: np.ndarray, positives: int) -> float:
    """Area under the precision curve made monotone (VOC2010-12); otherwise ``eleven_point_ap``."""
    if positives == 0:
        return float("nan")
    _, envelope = _precision_envelope(correct)
    return float(envelope[correct].sum() / positives)  # recall rises by 1/positives at each hit


def _precision_envelope(correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Objects found so far, int [d], and the best precision from each row on, float64 [d]."""
    found = np.cumsum(correct)
    precision = found / np.arange(1, len(correct) + 1)
    return found, np.maximum.accumulate(precision[::-1])[::-1]


def _best_objects(
    boxes: np.ndarray,
    labels: np.ndarray,
    object_boxes: np.ndarray,
    object_labels: np.ndarray,
    pixel_offset: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The object of the same class that each box overlaps most.

    Args:
        boxes: float64 [d, 4] and labels int [d], detections of one image.
        labels: see boxes.
        object_boxes: float64 [n, 4] and object_labels int [n], its objects.
        object_labels: see object_boxes.
        pixel_offset: added to every width and height.

    Returns:
        Overlap float64 [d], 0 where nothing of the class is touched; index of the object int [d].
    """
    if not len(boxes) or not len(object_boxes):
        return np.zeros(len(boxes)), np.zeros(len(boxes), int)
    a, b = boxes[:, None], object_boxes[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + pixel_offset
    shared = np.where((sides > 0).all(-1), sides[..., 0] * sides[..., 1], 0.0)  # [d, n]
    shared[labels[:, None] != object_labels[None]] = 0.0
    area_a, area_b = (np.prod(x[..., 2:] - x[..., :2] + pixel_offset, axis=-1) for x in (a, b))
    union = area_a + area_b - shared
    overlaps = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    best = overlaps.argmax(1)
    return overlaps[np.arange(len(boxes)), best], best
