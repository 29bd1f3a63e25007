"""What a network finds in some training images, held against what it would find by chance.

At a tenth of a run that goes well the average precision is often still 0. What shows much earlier that a
network looks at its images at all: its detections lie nearer to the objects of their own image than to
those of the other images. Whether it tells classes apart shows, in the same way, in how often a box that
is found has the right class, against what the same answers would give by luck.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jdet.evaluation.coco_ap import CocoEvaluator
from jdet.evaluation.overlaps import overlaps
from jdet.types import Example, ImageDetections

MOST = 100
"""Detections of an image that count, best first."""

IOU = 0.5
"""Overlap from which an object counts as found."""

FEWEST_IMAGES, FEWEST_FOUND = 6, 30
"""Images, and objects found, below which nothing is compared with chance."""

Pair = tuple[ImageDetections, Example]


class Found(NamedTuple):
    """What was found; nan where there is too little to say.

    Attributes:
        images: that were looked at.
        objects: in them that count.
        ap: AP50 (COCO), mean over the classes that are there.
        agnostic: AP50 where all classes count as one.
        recall: share of the objects that have a detection of whatever class, among as many of an image's
            best detections as it has objects.
        near: standard deviations by which detections lie nearer to the objects of their own image than
            to those of other images.
        classes: standard deviations by which the classes of objects that are found are right more often
            than by chance.
        right: share of the objects found whose class is right.
        same: every image gets the same detections.
    """

    images: int
    objects: int
    ap: float
    agnostic: float
    recall: float
    near: float
    classes: float
    right: float
    same: bool


def measure(pairs: Sequence[Pair], class_names: Sequence[str]) -> Found:
    """Measures what was found.

    Args:
        pairs: detections and objects of every image, in pixels of the original image.
        class_names: K names, in label order.
    """
    boxes = [_kept(example) for _, example in pairs]
    best = [found.select(np.arange(min(len(found.scores), MOST))) for found, _ in pairs]
    recalled = objects = 0
    told: list[tuple[int, int]] = []
    for found, (rows, labels) in zip(best, boxes, strict=True):
        objects += len(rows)
        if not len(rows):
            continue
        overlap, _ = overlaps(np.asarray(found.boxes, float), rows)
        recalled += int((overlap[: len(rows)] >= IOU).any(0).sum())
        for column in np.flatnonzero((overlap >= IOU).any(0)):
            first = int(np.flatnonzero(overlap[:, column] >= IOU)[0])  # the best score
            told.append((int(found.labels[first]), int(labels[column])))
    classes, right = _classes(np.array(told, int).reshape(-1, 2), len(class_names))
    return Found(
        images=len(pairs),
        objects=objects,
        ap=_ap50(pairs, class_names, agnostic=False),
        agnostic=_ap50(pairs, class_names, agnostic=True),
        recall=recalled / objects if objects else math.nan,
        near=_near(best, boxes),
        classes=classes,
        right=right,
        same=_same(best),
    )


def _kept(example: Example) -> tuple[np.ndarray, np.ndarray]:
    keep = ~np.asarray(example.ignore, bool)
    return np.asarray(example.boxes, float)[keep], np.asarray(example.labels)[keep]


def _near(best: Sequence[ImageDetections], boxes: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """The objects of image i + s are held against the detections of image i, for every shift s.

    With s = 0 the mean over detections, weighed by their scores, of the IoU with the nearest object; in
    standard deviations of the same with all other shifts. Boxes are shares of the frame that detections and
    objects of an image lie in.
    """
    some = [i for i, (rows, _) in enumerate(boxes) if len(rows) and len(best[i].scores)]
    if len(some) < FEWEST_IMAGES:
        return math.nan
    frames = [np.tile(np.concatenate([best[i].boxes, boxes[i][0]])[:, 2:].max(0), 2) for i in some]
    found = [best[i].boxes / frame for i, frame in zip(some, frames, strict=True)]
    ground_truth = [boxes[i][0] / frame for i, frame in zip(some, frames, strict=True)]
    weights = [np.asarray(best[i].scores, float) for i in some]
    count, total = len(some), max(sum(float(w.sum()) for w in weights), 1e-12)

    def mean(shift: int) -> float:
        pairs = ((i, (i + shift) % count) for i in range(count))
        return (
            sum(weights[i] @ overlaps(found[i], ground_truth[j])[0].max(1) for i, j in pairs)
            / total
        )

    others = np.array([mean(shift) for shift in _shifts(count)])
    return float((mean(0) - others.mean()) / max(others.std(ddof=1), 1e-9))


def _shifts(count: int) -> list[int]:
    """Some of 1 … count - 1, evenly."""
    return np.unique(np.linspace(1, count - 1, min(count - 1, 31)).astype(int)).tolist()


def _classes(told: np.ndarray, classes: int) -> tuple[float, float]:
    """As ``Found.classes`` and ``right``; rows of ``told`` are (class found, class)."""
    if len(told) < FEWEST_FOUND or classes < 2:
        return math.nan, math.nan
    right = float((told[:, 0] == told[:, 1]).mean())
    shares = [np.bincount(column, minlength=classes) / len(told) for column in told.T]
    chance = float((shares[0] * shares[1]).sum())
    spread = math.sqrt(max(chance * (1 - chance), 1e-9) / len(told))
    return (right - chance) / spread, right


def _same(best: Sequence[ImageDetections]) -> bool:
    """Whether all images have detections of the same scores and labels."""
    if len(best) < 2 or not len(best[0].scores):
        return False
    first = best[0]
    return all(
        np.array_equal(each.labels, first.labels)
        and np.allclose(each.scores, first.scores, rtol=1e-3, atol=1e-6)
        for each in best[1:]
    )


def _ap50(pairs: Sequence[Pair], class_names: Sequence[str], *, agnostic: bool) -> float:
    evaluator = CocoEvaluator(("object",) if agnostic else class_names)
    for found, example in pairs:
        example = example._replace(official=None).without_masks()
        if agnostic:
            found = found._replace(labels=np.zeros_like(found.labels))
            example = example._replace(labels=np.zeros_like(example.labels))
        evaluator.add(found, example)
    return float(evaluator.result()["coco/AP50"])
