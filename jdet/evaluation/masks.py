"""Masks that a network predicts, pasted into images as COCO's run-length encodings."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from jdet.data.segmentation import Rle, encode


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
        canvas = np.zeros((height, width), np.uint8, order="F")
        if x2 > x1 and y2 > y1:
            rows, along_y = _weights(y1, y2, mask.shape[0], height)
            columns, along_x = _weights(x1, x2, mask.shape[1], width)
            canvas[rows, columns] = along_y @ mask @ along_x.T >= threshold
        pasted.append(encode(canvas))
    return tuple(pasted)


def _weights(low: float, high: float, cells: int, limit: int) -> tuple[slice, np.ndarray]:
    """Linear interpolation along one axis.

    Args:
        low: where the box begins, pixels.
        high: where it ends.
        cells: of the mask.
        limit: pixels of the image.

    Returns:
        The pixels that any cell reaches, and the weight of every cell in each, float64 [n, cells].
    """
    reach = 0.5 * (high - low) / cells  # of the outermost cells beyond the box
    first, end = np.clip([np.floor(low - reach), np.ceil(high + reach)], 0, limit).astype(int)
    centres = np.arange(first, end) + 0.5
    places = (centres - low) / (high - low) * cells - 0.5
    distance = np.abs(places[:, None] - np.arange(cells))
    return slice(first, end), np.clip(1 - distance, 0, None)


def area(rle: Rle) -> float:
    """Pixels of a mask."""
    encoded: Any = rle
    return float(coco_mask.area(encoded))
