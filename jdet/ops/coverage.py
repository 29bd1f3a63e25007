"""How well anchors of fixed shapes cover objects: IoU with the best one, computed from the grid.

In NumPy, without an array of all boxes. Anchors of one shape form a grid. Along an axis, the intersection
of two intervals never grows with the distance of their centres, and IoU grows with the intersections; so of
all anchors of one shape, the one at the nearest grid point overlaps an object most. One IoU per object and
shape is left to compute, whatever the size of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jdet.ops.anchors import default_boxes


class Objects(NamedTuple):
    """Objects as the network sees them.

    Attributes:
        boxes: float64 [n, 4], x1 y1 x2 y2 in pixels of the network input.
        labels: int [n], 0 … K-1.
        images: int [n], number of the image of each object.
    """

    boxes: np.ndarray
    labels: np.ndarray
    images: np.ndarray

    def of_classes_with(self, fewest: int) -> Objects:
        """The objects of the classes that have ``fewest`` or more."""
        known, counts = np.unique(self.labels, return_counts=True)
        kept = np.isin(self.labels, known[counts >= fewest])
        return Objects(*(field[kept] for field in self))

    def scaled(self, factor: float) -> Objects:
        """The same objects at ``factor`` times the input size."""
        return self._replace(boxes=self.boxes * factor)


class Coverage(NamedTuple):
    """How the default boxes cover each object.

    Attributes:
        best: float64 [n], IoU with the best default box.
        count: int [n], number of default boxes whose IoU with it reaches the threshold.
        shared: bool [n], its best default box is also the best one of another object of the image.
    """

    best: np.ndarray
    count: np.ndarray
    shared: np.ndarray


def cover(
    objects: Objects,
    levels: Sequence[Any],
    cells: Sequence[int],
    threshold: float = 0.5,
    clip: int = 0,
) -> Coverage:
    """Compares objects with all default boxes of a layout.

    Args:
        objects: n objects in pixels of the network input.
        levels: the default boxes of each level.
        cells: side of each level's map.
        threshold: IoU from which a default box is positive.
        clip: side of the image that the boxes are cut to, pixels; 0: they are not cut.
    """
    if clip:
        return _cover_clipped(objects, levels, cells, threshold, clip)
    n = len(objects.boxes)
    best, count, box = np.zeros(n), np.zeros(n, int), np.zeros((n, 4), int)
    low, high = objects.boxes[:, :2], objects.boxes[:, 2:]
    sides, centres = high - low, (low + high) / 2
    for number, (level, side) in enumerate(zip(levels, cells, strict=True)):
        grid = _nearest(centres, level, side).astype(int)  # [n, 2]
        away = np.abs(grid * level.step + level.start - centres)
        for shape, size in enumerate(level.cell()):
            common = _shared(sides, size, away).prod(-1)
            iou = common / np.maximum(sides.prod(-1) + size.prod() - common, 1e-12)
            better = iou > best
            best[better] = iou[better]
            box[better] = np.column_stack([np.full(n, number), grid, np.full(n, shape)])[better]
            rows = np.flatnonzero(iou >= threshold)
            if len(rows):
                count[rows] += _count(
                    sides[rows], centres[rows], grid[rows], size, level, side, threshold
                )
    return Coverage(best, count, _shared_best(objects, box, best))


def _nearest(centres: np.ndarray, level: Any, side: int) -> np.ndarray:
    """Index of the grid point nearest to each coordinate."""
    return np.clip(np.rint((centres - level.start) / level.step), 0, side - 1)


def _shared_best(objects: Objects, box: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Which objects have their best box in common; ``box`` [n, m] names it."""
    key = np.column_stack([objects.images, box])
    _, which, times = np.unique(key, axis=0, return_inverse=True, return_counts=True)
    return (times[which.reshape(-1)] > 1) & (best > 0)


def _cover_clipped(
    objects: Objects,
    levels: Sequence[Any],
    cells: Sequence[int],
    threshold: float,
    clip: int,
) -> Coverage:
    """Every object with every box: boxes cut at the border are no longer of one shape."""
    priors = default_boxes(levels, [(side, side) for side in cells], (clip, clip)).astype(float)
    low, high = priors[:, :2] - priors[:, 2:] / 2, priors[:, :2] + priors[:, 2:] / 2
    area = priors[:, 2:].prod(-1)
    n = len(objects.boxes)
    best, count, box = np.zeros(n), np.zeros(n, int), np.zeros((n, 1), int)
    for begin in range(0, n, 64):
        rows = slice(begin, begin + 64)
        a, b = objects.boxes[rows, None, :2], objects.boxes[rows, None, 2:]
        common = np.maximum(np.minimum(b, high) - np.maximum(a, low), 0).prod(-1)
        iou = common / np.maximum((b - a).prod(-1) + area - common, 1e-12)
        best[rows], box[rows, 0] = iou.max(1), iou.argmax(1)
        count[rows] = np.count_nonzero(iou >= threshold, axis=1)
    return Coverage(best, count, _shared_best(objects, box, best))


def best_iou(
    objects: Objects,
    levels: Sequence[Any],
    cells: Sequence[int],
    clip: int = 0,
) -> np.ndarray:
    """``cover(…).best`` alone, several times faster: for searches."""
    if clip:
        return _cover_clipped(objects, levels, cells, 0.5, clip).best
    low, high = objects.boxes[:, :2].T[..., None], objects.boxes[:, 2:].T[..., None]
    (w, h), centres = high - low, (low + high) / 2  # [n, 1], [2, n, 1]
    best = np.zeros(len(objects.boxes))
    for level, side in zip(levels, cells, strict=True):
        grid = _nearest(centres, level, side)
        dx, dy = np.abs(grid * level.step + level.start - centres)
        width, height = level.cell().T  # [A]
        x = np.minimum(np.minimum(w, width), (w + width) / 2 - dx)
        y = np.minimum(np.minimum(h, height), (h + height) / 2 - dy)
        common = np.maximum(x, 0) * np.maximum(y, 0)
        iou = common / np.maximum(w * h + width * height - common, 1e-12)
        np.maximum(best, iou.max(axis=1), out=best)
    return best


def _shared(sides: np.ndarray, size: np.ndarray, away: np.ndarray) -> np.ndarray:
    """Length that intervals of two lengths with centres ``away`` from each other have in common."""
    return np.maximum(np.minimum(np.minimum(sides, size), (sides + size) / 2 - away), 0)


def _count(
    sides: np.ndarray,
    centres: np.ndarray,
    grid: np.ndarray,
    size: np.ndarray,
    level: Any,
    cells: int,
    threshold: float,
) -> np.ndarray:
    """How many boxes of one shape and level overlap each of n objects by the threshold -> int [n]."""
    # IoU ≥ t where the intersection is at least this:
    needed = threshold / (1 + threshold) * (sides.prod(-1) + size.prod())
    other = np.minimum(sides, size)[:, ::-1]
    reach = ((sides + size) / 2 - needed[:, None] / other).max()
    farthest = int(max(reach, 0) / level.step) + 1
    around = np.arange(-farthest, farthest + 1)
    place = grid[..., None] + around  # [n, 2, m]
    away = np.abs(place * level.step + level.start - centres[..., None])
    common = _shared(sides[..., None], size[:, None], away) * ((place >= 0) & (place < cells))
    x, y = common[:, 0, :, None], common[:, 1, None, :]
    return np.count_nonzero(x * y >= needed[:, None, None] * (1 - 1e-12), axis=(1, 2))
