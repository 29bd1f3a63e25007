"""Which detection found which object, by pycocotools' rule, at any number of overlaps at once.

hotcoco hands out the matches of all images as one dict per image, class and size, which takes minutes on a
set such as COCO's; the arrays here take seconds, and all that is counted per detection starts from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jdet.types import ImageDetections, OfficialObjects

MOST = 100
"""Detections per image and class that count, the best; as in COCO's protocol."""


class Matches(NamedTuple):
    """What became of each detection of an image, at T overlaps.

    Attributes:
        right: bool [T, d], a true positive.
        neither: bool [T, d], counts neither way: in a crowd, or not among the ``MOST`` of its class.
        objects: int32 [T, d], the object found; -1 where ``right`` is False.
    """

    right: np.ndarray
    neither: np.ndarray
    objects: np.ndarray


def overlaps(found: ImageDetections, ground_truth: OfficialObjects) -> np.ndarray:
    """IoU of boxes, float64 [d, g]; with an ignored object the share of the detection inside it."""
    boxes = np.asarray(found.boxes, np.float64).reshape(-1, 1, 4)
    corner, sides = ground_truth.xywh[None, :, :2], ground_truth.xywh[None, :, 2:]
    own = boxes[..., 2:] - boxes[..., :2]
    # pycocotools adds the sides to the corners, and so does this, to agree in the last digit.
    shared = np.minimum(boxes[..., :2] + own, corner + sides) - np.maximum(boxes[..., :2], corner)
    inside = np.where((shared > 0).all(-1), shared[..., 0] * shared[..., 1], 0.0)
    area = own[..., 0] * own[..., 1]
    both = np.where(ground_truth.ignore[None], area, area + sides[..., 0] * sides[..., 1] - inside)
    return np.divide(inside, both, out=np.zeros_like(inside), where=inside > 0)


def match(
    found: ImageDetections,
    ground_truth: OfficialObjects,
    ious: Sequence[float] = (0.5,),
    *,
    any_class: bool = False,
) -> Matches:
    """Matches one image: best first, each detection takes the object it overlaps most of those left.

    Args:
        found: d detections, in any order.
        ground_truth: g objects. Ignored ones are never used up, and come after all others.
        ious: T overlaps from which on an object is found.
        any_class: a detection may take an object of another class, as in confusion matrices; it lies in
            an ignored one only if that is of its own.

    Returns:
        In the order of ``found``.
    """
    count, needed = len(found.scores), np.minimum(np.asarray(ious, float), 1 - 1e-10)
    right = np.zeros((len(needed), count), bool)
    neither, objects = right.copy(), np.full(right.shape, -1, np.int32)
    order = np.argsort(-np.asarray(found.scores), kind="stable")
    late = np.zeros(count, bool)
    if count > MOST:
        late = _rank_in_class(np.asarray(found.labels), order) >= MOST
    neither[:, late] = True
    if not count or not len(ground_truth.labels):
        return Matches(right, neither, objects)

    over = overlaps(found, ground_truth)
    allowed = np.asarray(found.labels)[:, None] == ground_truth.labels[None]
    if any_class:
        allowed |= ~ground_truth.ignore[None]
    over[~allowed] = 0.0
    over[late] = 0.0
    free = np.tile(~ground_truth.ignore, (len(needed), 1))  # [T, g]
    within = np.where(ground_truth.ignore[None], over, 0.0).max(1)
    last = len(ground_truth.labels) - 1
    for row in order[over[order].max(1) >= needed.min()]:
        open_to = np.where(free, over[row], 0.0)
        best = last - open_to[:, ::-1].argmax(1)  # of equals the last, as pycocotools
        rows = np.flatnonzero(open_to[np.arange(len(needed)), best] >= needed)
        right[rows, row], objects[rows, row] = True, best[rows]
        free[rows, best[rows]] = False
        neither[:, row] = ~right[:, row] & (within[row] >= needed)
    return Matches(right, neither, objects)


def _rank_in_class(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """How many detections of the same class come before each, int [d], where ``order`` is best first."""
    rank = np.zeros(len(labels), int)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        rank[of_class] = np.arange(len(of_class))
    return rank
