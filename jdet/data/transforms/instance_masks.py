"""Instance masks on their way to the network: one small bitmap per object, in the frame of its box.

A bitmap is the mask of the whole image, cut to the box and resized to M x M cells, whatever the object's
size: cell (i, j) says whether the point at (j + 0.5, i + 0.5) / M of the box lies in a pixel of the object.
Resizing an image therefore changes no bitmap, and a flip mirrors it. Where a crop cuts a box, the
bitmap is sampled anew in the part that is left, from the polygons or runs of the file: nothing is resampled
twice. Boxes need not begin at whole pixels; a cell takes the pixel that its point lies in, and one on the
seam of two the right or lower one.

Polygons are rasterised at the full size of the image by pycocotools, as for COCO's AP, but only into
runs; of these, only the columns under the box are ever unrolled. In a batch an image has N · M² bytes of
masks, 1.25 MB for 100 objects at M = 112.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jdet.data.segmentation import columns
from jdet.data.transforms.geometry import Orientation, Placement
from jdet.data.transforms.resample import Size


def box_bitmaps(
    segmentations: Sequence[Any], boxes: np.ndarray, image_size: Size, side: int
) -> np.ndarray:
    """Masks in the frames of boxes.

    Args:
        segmentations: n of COCO's, or None for an object without one.
        boxes: float [n, 4], x1 y1 x2 y2 in continuous pixels of the image, with area.
        image_size: height and width of the image that the segmentations are of.
        side: M.

    Returns:
        uint8 [n, M, M] of 0 and 1; all 0 where there is no segmentation.

    Raises:
        ValueError: a segmentation is none, or not of this image.
    """
    height, width = image_size
    bitmaps = np.zeros((len(segmentations), side, side), np.uint8)
    if not len(segmentations):
        return bitmaps
    low, high = np.asarray(boxes, np.float64).reshape(-1, 2, 2).swapaxes(0, 1)  # [n, xy] each
    steps = (np.arange(side) + 0.5) / side
    points = low[:, None] + steps[:, None] * (high - low)[:, None]  # [n, M, xy]
    cells = np.clip(np.floor(points).astype(np.int64), 0, np.array([width, height]) - 1)
    for bitmap, segmentation, places in zip(bitmaps, segmentations, cells, strict=True):
        if segmentation is None:
            continue
        x, y = places.T
        under = columns(segmentation, height, width, x[0], x[-1] + 1)
        bitmap[:] = under.take(x - x[0], 0).take(y, 1).T
    return bitmaps


def mask_boxes(segmentations: Sequence[Any], boxes: np.ndarray, image_size: Size) -> np.ndarray:
    """Boxes of the parts of masks that lie in boxes.

    Args:
        segmentations: n of COCO's, or None for an object without one.
        boxes: float [n, 4], x1 y1 x2 y2 in continuous pixels of the image.
        image_size: height and width of the image that the segmentations are of.

    Returns:
        float64 [n, 4], of the pixels of the mask, and of no more than their box; the box itself where there
        is no segmentation, and zeros where the mask has no pixel in the box.

    Raises:
        ValueError: a segmentation is none, or not of this image.
    """
    height, width = image_size
    found = np.array(boxes, np.float64)
    for box, segmentation in zip(found, segmentations, strict=True):
        if segmentation is None:
            continue
        x1, y1 = np.clip(np.floor(box[:2]), 0, (width, height)).astype(int)
        x2, y2 = np.clip(np.ceil(box[2:]), 0, (width, height)).astype(int)
        inside = np.zeros((0, 0), bool)
        if x1 < x2 and y1 < y2:
            inside = columns(segmentation, height, width, x1, x2)[:, y1:y2] > 0
        if not inside.any():
            box[:] = 0
            continue
        x, y = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        tight = x1 + x[0], y1 + y[0], x1 + x[-1] + 1, y1 + y[-1] + 1
        box[:2] = np.maximum(box[:2], tight[:2])
        box[2:] = np.minimum(box[2:], tight[2:])
    return found


def visible_parts(boxes: np.ndarray, placement: Placement, size: Size) -> np.ndarray:
    """The parts of boxes that an output shows, without leaving the pixels of the image.

    Args:
        boxes: float32 [n, 4] in pixels of the image.
        placement: where the image lies in the output; ``source`` must have pixels.
        size: of the output.

    Returns:
        float64 [n, 4]; exactly the box where the output shows all of it.
    """
    (x0, y0, x1, y1), (left, top, right, bottom) = placement
    kx, ky = (right - left) / (x1 - x0), (bottom - top) / (y1 - y0)
    corner = np.array([x0 - left / kx, y0 - top / ky])
    window = np.concatenate([corner, corner + np.array([size[1] / kx, size[0] / ky])])
    return np.clip(boxes.astype(np.float64), np.tile(window[:2], 2), np.tile(window[2:], 2))


def turned(bitmaps: np.ndarray, orientation: Orientation) -> np.ndarray:
    """Bitmaps [n, M, M] of an upright output in one of another orientation, as ``render`` turns it."""
    if orientation.flip:
        bitmaps = bitmaps[:, :, ::-1]
    if orientation.flip_vertical:
        bitmaps = bitmaps[:, ::-1]
    return np.rot90(bitmaps, -1, (1, 2)) if orientation.quarter else bitmaps
