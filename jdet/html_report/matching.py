"""Which detections of an evaluation are right, at every score threshold at once.

Detections are matched best score first, so that what becomes of one depends on better ones alone: leaving
out the worse ones changes nothing. One matching therefore says for every threshold what is found, false
and missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jdet.data.sources.coco import xywh_to_xyxy
from jdet.evaluation.official import finite, official_of
from jdet.evaluation.overlaps import overlaps
from jdet.types import Example, ImageDetections

BACKGROUND, IGNORED, WRONG_CLASS, DUPLICATE, BADLY_PLACED = -1, -2, -3, -4, -5
"""What a detection is that is matched to no object: all but ``IGNORED`` are false positives."""

STEPS = 100
"""Thresholds 0, 1/100, … 1."""

_NEAR = 0.1  # overlap from which a false detection belongs to an object (Bolya et al. 2020, TIDE)


class Matched(NamedTuple):
    """One image.

    Attributes:
        detections: best first.
        boxes: float64 [n, 4], x1 y1 x2 y2 of the objects as labelled.
        labels: int [n].
        ignore: bool [n].
        masks: a COCO segmentation or None per object; None where there are no masks.
        outcome: int [d], the object that a detection finds, or one of the negative numbers above.
    """

    detections: ImageDetections
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    masks: Sequence[object] | None
    outcome: np.ndarray

    def counts(self, threshold: float) -> tuple[int, int, int]:
        """Objects found, false detections and objects missed at a score threshold."""
        kept = self.outcome[levels(self.detections.scores) >= round(threshold * STEPS)]
        found = int((kept >= 0).sum())
        false = int(((kept < 0) & (kept != IGNORED)).sum())
        return found, false, int((~self.ignore).sum()) - found

    def f1(self, threshold: float) -> float:
        """At a score threshold; 1 where there is nothing to find and nothing was found."""
        found, false, missed = self.counts(threshold)
        return 2 * found / (2 * found + false + missed) if found + false + missed else 1.0


def match(detections: ImageDetections, example: Example, iou: float) -> Matched:
    """Matches an image: each detection takes the object of its class that it overlaps most, if it is free.

    Boxes alone count. A detection that finds none but lies, by ``iou`` of its own area, in an ignored
    object of its class counts neither way, as in COCO's evaluation.

    Args:
        detections: in pixels of the original image, in any order.
        example: the ground truth.
        iou: overlap from which an object counts as found.
    """
    detections = finite(detections)
    detections = detections.select(np.argsort(-detections.scores, kind="stable"))
    objects = official_of(example)
    boxes, labels = xywh_to_xyxy(objects.xywh), np.asarray(objects.labels)
    ignore = np.asarray(objects.ignore, bool)
    overlap, inside = overlaps(np.asarray(detections.boxes, np.float64), boxes)
    same = np.asarray(detections.labels)[:, None] == labels[None]
    outcome = np.full(len(detections.scores), BACKGROUND)
    free = ~ignore
    for row in range(len(outcome)):
        candidates = np.where(same[row] & free, overlap[row], 0.0)
        best = int(candidates.argmax()) if len(candidates) else -1
        if best >= 0 and candidates[best] >= iou:
            outcome[row] = best
            free[best] = False
        elif (same[row] & ignore & (inside[row] >= iou)).any():
            outcome[row] = IGNORED
        else:
            outcome[row] = _mistake(overlap[row], same[row], ~ignore, iou)
    return Matched(detections, boxes, labels, ignore, objects.masks, outcome)


def _mistake(overlap: np.ndarray, same: np.ndarray, counts: np.ndarray, iou: float) -> int:
    """The kind of a false positive, by the object that it overlaps most."""
    if (overlap[same & counts] >= iou).any():
        return DUPLICATE
    if (overlap[~same & counts] >= iou).any():
        return WRONG_CLASS
    return BADLY_PLACED if (overlap[same & counts] >= _NEAR).any() else BACKGROUND


def levels(scores: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """The highest threshold, counted in parts of 1, that each score passes but for float32's rounding."""
    return np.floor((np.asarray(scores, np.float64) + 1e-6) * steps).astype(int)


class Totals(NamedTuple):
    """Of all images.

    Attributes:
        objects: that count.
        found: int [101], by threshold in hundredths.
        false: int [101].
    """

    objects: int
    found: np.ndarray
    false: np.ndarray

    def best(self) -> int:
        """The threshold, in hundredths, of the best F1; the highest of several."""
        f1 = 2 * self.found / np.maximum(self.found + self.false + self.objects, 1)
        return int(STEPS - f1[::-1].argmax())


def totals(images: Sequence[Matched]) -> Totals:
    """Adds up images."""
    counts = np.zeros((2, STEPS + 1), int)
    for image in images:
        passed = np.clip(levels(image.detections.scores), 0, STEPS)
        right = image.outcome >= 0
        wrong = ~right & (image.outcome != IGNORED)
        for row, which in enumerate((right, wrong)):
            counts[row] += np.bincount(passed[which], minlength=STEPS + 1)
    at_least = counts[:, ::-1].cumsum(1)[:, ::-1]
    objects = sum(int((~image.ignore).sum()) for image in images)
    return Totals(objects, at_least[0], at_least[1])
