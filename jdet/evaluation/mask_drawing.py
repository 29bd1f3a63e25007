"""Instance masks in drawn images: translucent fills with outlines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from jdet.data.segmentation import decode, extent

OPACITY = 0.4
"""Of a fill; the image shows through the rest."""


def draw_masks(
    canvas: np.ndarray,
    masks: Sequence[Any],
    colors: Sequence[tuple[int, int, int]],
    size: tuple[int, int],
) -> None:
    """Draws masks into an image, in place; later ones lie on top.

    Args:
        canvas: uint8 [h, w, 3], RGB: the image, possibly enlarged.
        masks: COCO segmentations, polygons or runs, in pixels of the original image; or None.
        colors: RGB of each.
        size: height and width of the original image.
    """
    height, width = canvas.shape[:2]
    scale = np.array([width / size[1], height / size[0]])
    line = max(1, round(max(height, width) * 0.002))
    for mask, color in zip(masks, colors, strict=True):
        if mask is None:
            continue
        low, high = np.reshape(extent(mask), (2, 2))
        # With a pixel of background around, from which contours need not keep away.
        low, high = np.maximum(np.floor(low) - 1, 0), np.minimum(np.ceil(high) + 1, size[::-1])
        (left, top), (right, bottom) = low.astype(int), high.astype(int)
        part = np.ascontiguousarray(decode(mask, *size)[top:bottom, left:right])
        if not part.any():
            continue
        x, y = np.round(low * scale).astype(int)
        x_end, y_end = np.maximum(np.round(high * scale).astype(int), [x + 1, y + 1])
        part = cv2.resize(part * 255, (x_end - x, y_end - y), interpolation=cv2.INTER_LINEAR)
        inside = part >= 128
        shown = canvas[y:y_end, x:x_end]
        shown[inside] = np.round((1 - OPACITY) * shown[inside] + OPACITY * np.array(color))
        outlines, _ = cv2.findContours(
            inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(int(x), int(y))
        )
        cv2.polylines(canvas, outlines, True, color, line, cv2.LINE_AA)
