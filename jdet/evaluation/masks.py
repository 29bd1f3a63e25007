"""Masks that a network predicts, pasted into images as COCO's run-length encodings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from jdet.data.segmentation import Rle, columns, encode_part, extent


def paste_masks(
    masks: np.ndarray, boxes: np.ndarray, height: int, width: int, *, threshold: float = 0.5
) -> tuple[Rle, ...]:
    """Resizes masks into their boxes in an image and cuts them at a threshold.

    The convention is that of Detectron2 and MMDetection: cell (i, j) of a mask stands for its centre, at
    (j + 0.5, i + 0.5) / m of the box; an image pixel takes the bilinear interpolation at its own centre,
    beyond the outermost centres towards 0; it belongs to the object from ``threshold`` on. Where a box
    has whole-number corners and a mask its size in pixels, the mask comes out as it is.

    Args:
        masks: float [d, m, m], probabilities in the frame of each box.
        boxes: float [d, 4], x1 y1 x2 y2 in continuous pixels of the image. They may reach beyond it, which
            cuts the masks but does not move them; a box without area has an empty mask.
        height: of the image, pixels.
        width: of the image, pixels.
        threshold: lowest probability of a pixel of the object.

    Returns:
        One run-length encoding of the whole image per mask.
    """
    pasted = []
    for mask, (x1, y1, x2, y2) in zip(
        np.asarray(masks, np.float64), np.asarray(boxes, np.float64).tolist(), strict=True
    ):
        part, top, left = np.zeros((0, 0), bool), 0, 0
        if x2 > x1 and y2 > y1:
            top, along_y = _weights(y1, y2, mask.shape[0], height)
            left, along_x = _weights(x1, x2, mask.shape[1], width)
            part = along_y @ mask @ along_x.T >= threshold
        pasted.append(encode_part(part, top, left, height, width))
    return tuple(pasted)


def average(
    masks: np.ndarray, frames: np.ndarray, weights: np.ndarray, box: np.ndarray
) -> np.ndarray:
    """One mask from several of one object, each predicted in a box of its own.

    Each is resampled at the cell centres of ``box``, as by ``paste_masks`` at pixels, with 0 beyond it.

    Args:
        masks: float [n, m, m], probabilities in the frames.
        frames: float [n, 4], x1 y1 x2 y2.
        weights: float [n], not negative, such as scores.
        box: float [4], the frame of the result.

    Returns:
        float64 [m, m], the weighted mean of the probabilities.
    """
    side = masks.shape[-1]
    steps = (np.arange(side) + 0.5) / side
    (x1, y1, x2, y2), total = np.asarray(box, np.float64).tolist(), np.zeros((side, side))
    for mask, (low_x, low_y, high_x, high_y), weight in zip(
        masks, np.asarray(frames, np.float64).tolist(), weights, strict=True
    ):
        along_y = _taps(y1 + steps * (y2 - y1), low_y, high_y, side)
        along_x = _taps(x1 + steps * (x2 - x1), low_x, high_x, side)
        total += weight * (along_y @ mask @ along_x.T)
    return total / max(np.sum(weights), np.finfo(float).tiny)


def majority(masks: Sequence[Rle], weights: np.ndarray) -> Rle:
    """The pixels that belong to masks of one image with half of all weight at least."""
    height, width = masks[0]["size"]
    extents = np.array([extent(mask) for mask in masks])
    first, end = int(extents[:, 0].min()), int(extents[:, 2].max())
    votes = np.zeros((end - first, height))
    for mask, weight in zip(masks, weights, strict=True):
        votes += weight * columns(mask, height, width, first, end)
    return encode_part((votes.T >= 0.5 * np.sum(weights)), 0, first, height, width)


def _weights(low: float, high: float, cells: int, limit: int) -> tuple[int, np.ndarray]:
    """Linear interpolation along one axis of an image.

    Args:
        low: where the box begins, pixels.
        high: where it ends.
        cells: of the mask.
        limit: pixels of the image.

    Returns:
        The first pixel that any cell reaches, and the weights of every cell in all n that one does,
        float64 [n, cells].
    """
    reach = 0.5 * (high - low) / cells  # of the outermost cells beyond the box
    first, end = np.clip([np.floor(low - reach), np.ceil(high + reach)], 0, limit).astype(int)
    return int(first), _taps(np.arange(first, end) + 0.5, low, high, cells)


def _taps(points: np.ndarray, low: float, high: float, cells: int) -> np.ndarray:
    """The weights of a mask's cells at points along one axis, float64 [n, cells]; 0 in an empty box."""
    if high <= low:
        return np.zeros((len(points), cells))
    places = (points - low) / (high - low) * cells - 0.5
    return np.clip(1 - np.abs(places[:, None] - np.arange(cells)), 0, None)


def area(rle: Rle) -> float:
    """Pixels of a mask."""
    encoded: Any = rle
    return float(coco_mask.area(encoded))
