"""What images and labels show by themselves of why nothing can be learnt from them.

All is measured on few images, at the resolution that the network sees, with NumPy and OpenCV alone. Each
number is held against chance, so that it means the same for any set: against other borders than those of
the boxes, and against labels dealt anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from jdet.data.transforms import resample
from jdet.evaluation.overlaps import overlaps

DOUBLE = 0.9
"""IoU from which two boxes are around one object, as for ``jdet.doctor``."""

FLAT = 0.01
"""Standard deviation of an image, in those that the set is normalised by, below which it shows nothing."""

FEWEST = 40
"""Boxes below which their borders are not compared with others."""

FEWEST_TOLD = 120
"""Objects below which looks are not compared with classes."""

_MOST, _SIDE, _FINE = 400, 12, 32
_UNEVEN = 0.7  # right answers by luck from which on classes are too unequal to be compared


class Evidence(NamedTuple):
    """What images and labels show; nan where there is too little to say.

    Attributes:
        flat: share of the images that are all but constant as the network sees them.
        contradicting: share of the objects whose box another class has as well.
        edges: standard errors by which there is more of an edge along the boxes than along the same boxes
            moved by a part of their size.
        alike: standard deviations by which an object's class is that of the object that looks most like
            it, at the network's resolution, more often than by chance.
        alike_fine: the same at the resolution of the files.
    """

    flat: float
    contradicting: float
    edges: float
    alike: float
    alike_fine: float


class Seen(NamedTuple):
    """An image with its objects.

    Attributes:
        image: float32 [H, W, C], values in standard deviations of the set from its mean.
        boxes: [n, 4], pixels of it; those of the objects that count.
        labels: int [n].
        scale: pixels of the network input per pixel of the image, at most 1.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scale: float


def measure(images: Sequence[Seen], classes: int) -> Evidence:
    """Measures everything.

    Args:
        images: some of the training set.
        classes: K.
    """
    small = [_shrunk(each) for each in images]
    objects = [(i, row) for i, each in enumerate(images) for row in range(len(each.boxes))]
    chosen = objects[:: -(-len(objects) // _MOST) or 1]
    labels = np.array([images[i].labels[row] for i, row in chosen], int)
    owners = np.array([i for i, _ in chosen], int)

    def alike(seen: Sequence[Seen], side: int) -> float:
        crops = np.array([_crop(seen[i], row, side) for i, row in chosen])
        return max(_alike(looks, labels, owners, classes) for looks in (crops, _shapes(crops)))

    told = len(chosen) >= FEWEST_TOLD and classes > 1
    return Evidence(
        flat=float(np.mean([each.image.std((0, 1)).max() < FLAT for each in small]))
        if small
        else math.nan,
        contradicting=_contradicting(images),
        edges=_edges(small),
        alike=alike(small, _SIDE) if told else math.nan,
        alike_fine=alike(images, _FINE) if told else math.nan,
    )


def _shrunk(each: Seen) -> Seen:
    """An image as large as the network sees it."""
    height, width = each.image.shape[:2]
    size = max(round(width * each.scale), 1), max(round(height * each.scale), 1)
    image = resample.resize(each.image, *size, cv2.INTER_AREA)
    scale = np.array([size[0] / width, size[1] / height] * 2)
    return Seen(image, each.boxes * scale, each.labels, 1.0)


def _contradicting(images: Sequence[Seen]) -> float:
    objects = wrong = 0
    for each in images:
        objects += len(each.boxes)
        double = overlaps(each.boxes, each.boxes)[0] >= DOUBLE
        other = each.labels[:, None] != each.labels[None]
        wrong += int((double & other).any(1).sum())
    return wrong / objects if objects else math.nan


_SHIFTS = [(x, y) for x in (-0.4, 0.0, 0.4) for y in (-0.4, 0.0, 0.4) if x or y]


def _edges(images: Sequence[Seen]) -> float:
    """As ``Evidence.edges``: a paired test over objects of log ratios."""
    ratios = []
    for each in images:
        height, width = each.image.shape[:2]
        slopes = [
            np.hypot(
                cv2.Sobel(each.image[..., c], cv2.CV_32F, 1, 0),
                cv2.Sobel(each.image[..., c], cv2.CV_32F, 0, 1),
            )
            for c in range(each.image.shape[2])
        ]
        slope = cv2.dilate(np.mean(slopes, 0), np.ones((3, 3), np.uint8))
        for box in each.boxes[: max(_MOST // len(images), 8)]:
            sides = box[2:] - box[:2]
            if sides.min() < 4:
                continue
            own = _along(slope, box)
            moved = [box + np.tile(np.array(shift) * sides, 2) for shift in _SHIFTS]
            inside = [
                other
                for other in moved
                if (other[:2] >= 0).all() and other[2] <= width and other[3] <= height
            ]
            if inside:
                mean = np.mean([_along(slope, other) for other in inside])
                ratios.append(math.log((own + 1e-3) / (mean + 1e-3)))
    if len(ratios) < FEWEST:
        return math.nan
    return float(np.mean(ratios) / max(np.std(ratios) / math.sqrt(len(ratios)), 1e-9))


def _along(values: np.ndarray, box: np.ndarray) -> float:
    """Mean of a map along the border of a box, at sixteen places of each side."""
    at = (np.arange(16) + 0.5) / 16
    x, y = box[0] + at * (box[2] - box[0]), box[1] + at * (box[3] - box[1])
    whole = np.ones(16)
    columns = np.concatenate([x, x, whole * box[0], whole * (box[2] - 1)])
    rows = np.concatenate([whole * box[1], whole * (box[3] - 1), y, y])
    height, width = values.shape
    columns = np.clip(columns, 0, width - 1).astype(int)
    return float(values[np.clip(rows, 0, height - 1).astype(int), columns].mean())


def _crop(each: Seen, row: int, side: int) -> np.ndarray:
    """An object at a fixed size, float [side · side · C + 2]: its pixels, and logarithms of its sides."""
    height, width = each.image.shape[:2]
    x1, y1, x2, y2 = each.boxes[row]
    left, top = min(max(int(x1), 0), width - 1), min(max(int(y1), 0), height - 1)
    right, bottom = (
        max(min(math.ceil(x2), width), left + 1),
        max(min(math.ceil(y2), height), top + 1),
    )
    part = each.image[top:bottom, left:right]
    shrinks = part.shape[0] * part.shape[1] > side * side
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    pixels = resample.resize(part, side, side, how).ravel() / side
    sides = np.log([max(x2 - x1, 1.0), max(y2 - y1, 1.0)])
    return np.concatenate([pixels, sides])


def _shapes(crops: np.ndarray) -> np.ndarray:
    """The same crops whatever their brightness and contrast."""
    pixels, sides = crops[:, :-2], crops[:, -2:]
    pixels = pixels - pixels.mean(1, keepdims=True)
    norm = np.linalg.norm(pixels, axis=1, keepdims=True)
    return np.concatenate([pixels / np.maximum(norm, 1e-6), 0.1 * sides], 1)


def _alike(crops: np.ndarray, labels: np.ndarray, owners: np.ndarray, classes: int) -> float:
    """As ``Evidence.alike``; the nearest of the crops of other images, where there are any."""
    squares = (crops**2).sum(1)
    apart = squares[:, None] + squares[None] - 2 * crops @ crops.T
    apart[owners[:, None] == owners[None]] = np.inf
    if np.isinf(apart).all(1).any():
        return math.nan
    nearest = labels[apart.argmin(1)]
    right = (nearest == labels).mean()
    shares = [np.bincount(x, minlength=classes) / len(labels) for x in (labels, nearest)]
    chance = float((shares[0] * shares[1]).sum())
    if chance > _UNEVEN:
        return math.nan
    return float((right - chance) / math.sqrt(chance * (1 - chance) / len(labels)))
