"""Where rounding alone decides whether an object is reported: cut-offs of scores, and competing boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jdet.types import ImageDetections


class Cuts(NamedTuple):
    """What a detector leaves out.

    Attributes:
        lowest: float64 [K], score from which each class is reported.
        detections: most of an image; 0: no limit.
        per_class: most of each class; 0: no limit.
        nms_iou: overlap above which the worse box of a class is dropped; None: none is for that.
    """

    lowest: np.ndarray
    detections: int = 0
    per_class: int = 0
    nms_iou: float | None = None

    @classmethod
    def of(cls, detector: Any, thresholds: np.ndarray, tiled: bool) -> Cuts:
        """Of a detector's fields; of tiles, each of which has limits of its own, without the limits.

        Args:
            detector: the module.
            thresholds: float64 [K], lowest score to report of each class.
            tiled: whether images are cut into tiles.
        """
        soft = getattr(detector, "soft_nms", "none") != "none"
        return cls(
            lowest=np.maximum(thresholds, getattr(detector, "score_threshold", 0.0)),
            detections=0 if tiled else getattr(detector, "max_detections", 0),
            per_class=0 if tiled else getattr(detector, "max_per_class", 0),
            nms_iou=None if soft else getattr(detector, "nms_iou", None),
        )

    def ends(self, all_found: ImageDetections) -> np.ndarray:
        """Cut-offs of an image, float64 [K, 3]; those that there are not are infinite.

        They are a class's threshold, the last score of an image that has as many detections as it may have,
        and that of a class. A threshold of 0 cuts nothing off: no candidate has a score of 0.

        Args:
            all_found: what the run finds, before thresholds.
        """
        ends = np.full((len(self.lowest), 3), np.inf)
        ends[:, 0] = np.where(self.lowest > 0, self.lowest, np.inf)
        scores, labels = all_found.scores, all_found.labels
        if self.detections and len(scores) >= self.detections:
            ends[:, 1] = scores.min()
        for label in np.unique(labels) if self.per_class else ():
            own = scores[labels == label]
            if len(own) >= self.per_class:
                ends[label, 2] = own.min()
        return ends


class Sides(NamedTuple):
    """Detections of the run and of an export, and which of them the other has too.

    Attributes:
        found: both.
        alone: of both, rows that the other has not.
    """

    found: tuple[ImageDetections, ImageDetections]
    alone: tuple[Sequence[int], Sequence[int]]


def unexplained(sides: Sides, cuts: Cuts, ends: np.ndarray, pixels: float, score: float) -> int:
    """How many of the detections that one side alone has do not follow from rounding.

    A detection that the other side lacks is explained where

    * its score is within ``score`` of a cut-off, ``ends``; or
    * the other side has a box of the same class, not worse by more than ``score``, for which NMS drops it:
      one that both sides have, whose overlap with it is within rounding of ``nms_iou``; or one that the
      other side alone has, which overlaps it by more, and whose score is the same within ``score`` (so that
      either may come first) or which is itself explained (so that what it dropped follows).

    Rounding of an overlap is that of boxes that move by ``pixels``. NMS sees boxes before they are clipped
    to the image, so that at its edges more may count than need be; so it is with candidates at the border
    of the top k that enter NMS, and with what follows from other proposals: neither is known here.

    Args:
        sides: what was found.
        cuts: of the detector.
        ends: of the image, from ``Cuts.ends``.
        pixels: difference of a coordinate that is rounding.
        score: difference of a score that is rounding.
    """
    rows = [(side, row) for side in (0, 1) for row in sides.alone[side]]
    rows.sort(key=lambda each: -float(sides.found[each[0]].scores[each[1]]))
    explained: set[tuple[int, int]] = set()
    for side, row in rows:
        one, other = sides.found[side], sides.found[1 - side]
        own, label = float(one.scores[row]), int(one.labels[row])
        if np.abs(own - ends[label]).min() <= score:
            explained.add((side, row))
            continue
        if cuts.nms_iou is None:
            continue
        for rival in np.flatnonzero((other.labels == label) & (other.scores >= own - score)):
            iou, give = _iou(one.boxes[row], other.boxes[rival], pixels)
            if iou < cuts.nms_iou - give:
                continue
            if rival not in sides.alone[1 - side]:
                follows = iou <= cuts.nms_iou + give
            else:
                equal = float(other.scores[rival]) <= own + score
                follows = equal or (1 - side, int(rival)) in explained
            if follows:
                explained.add((side, row))
                break
    return len(rows) - len(explained)


def _iou(one: np.ndarray, other: np.ndarray, pixels: float) -> tuple[float, float]:
    """IoU of two boxes, and how far it moves where every coordinate moves by ``pixels`` at most."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    inner = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    overlap = float(np.prod(np.maximum(inner, 0)))
    sides = np.stack([first[2:] - first[:2], second[2:] - second[:2]])
    union = float(np.prod(sides, axis=1).sum()) - overlap
    if union <= 0:
        return 0.0, 0.0
    iou = overlap / union
    # An area moves by twice that much along each side; the union by both of them.
    moved = 2 * pixels * float(sides.sum())
    return iou, (1 + iou) * moved / union + 1e-6
