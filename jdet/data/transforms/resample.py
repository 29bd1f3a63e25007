"""Resizing and padding of images with any number of channels and of any type."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

INTERPOLATIONS = {
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "nearest": cv2.INTER_NEAREST,
    "cubic": cv2.INTER_CUBIC,
    "lanczos4": cv2.INTER_LANCZOS4,
}

# Shrink beyond which evaluation averages pixels: with its two taps per axis, linear interpolation
# reads ever fewer of them. VOC and COCO images at 300 pixels stay below it (640 / 300 = 2.1).
STRONG_SHRINK = 3.0

Size = tuple[int, int]
"""Height and width of an output, in pixels."""

Fill = tuple[float, ...]
"""A value per channel."""


def resize(image: np.ndarray, width: int, height: int, interpolation: int) -> np.ndarray:
    """Resizes [H, W, C] to [height, width, C] of the same type by one of the `INTERPOLATIONS`."""
    return by_four(
        image, lambda part: cv2.resize(part, (width, height), interpolation=interpolation)
    )


def by_four(image: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Applies a function of OpenCV, which takes up to four channels and drops the axis of a single one."""
    channels = image.shape[2]
    if channels == 3:
        return function(image)
    if channels <= 4:
        return _with_axis(function(image))
    parts = [
        _with_axis(function(np.ascontiguousarray(image[..., first : first + 4])))
        for first in range(0, channels, 4)
    ]
    return np.concatenate(parts, axis=2)


def _with_axis(image: np.ndarray) -> np.ndarray:
    return image[..., None] if image.ndim == 2 else image


def plain_interpolation(image: np.ndarray, width: int, height: int) -> int:
    """Interpolation without randomness: linear, or area if a side shrinks beyond `STRONG_SHRINK`."""
    strong = max(image.shape[0] / height, image.shape[1] / width) > STRONG_SHRINK
    return cv2.INTER_AREA if strong else cv2.INTER_LINEAR


def pad(image: np.ndarray, size: Size, fill: Fill) -> np.ndarray:
    """The image [H, W, C] in the upper left corner of an output it fits into."""
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    output = blank(size, fill, image.dtype)
    output[:height, :width] = image
    return output


def blank(size: Size, fill: Fill, dtype: Any = np.uint8) -> np.ndarray:
    """A new image [*size, C] of one colour; of whole numbers it is rounded."""
    return _filled(size, tuple(fill), np.dtype(dtype)).copy()


@functools.lru_cache(maxsize=8)
def _filled(size: Size, fill: Fill, dtype: np.dtype) -> np.ndarray:
    # Assigning a colour to every pixel takes longer than a resize; copying a filled array does not.
    canvas = np.empty((*size, len(fill)), dtype)
    canvas[:] = np.rint(fill) if dtype.kind in "iu" else fill
    return canvas
