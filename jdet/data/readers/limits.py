"""How large an image may be: a file of some kilobytes can hold billions of equal pixels."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from jdet.types import DataError

VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"
"""Environment variable with another limit than ``MOST_PIXELS``; OpenCV's own."""

MOST_PIXELS = 1 << 30
"""Of an image, where the environment says nothing: what OpenCV decodes."""

BYTES_OF_A_PIXEL = 8
"""So many bytes for each of these pixels is what an image takes at most: four channels of 16 bits."""


def most_pixels() -> int:
    """Pixels that an image may have."""
    given = os.environ.get(VARIABLE, "")
    return int(given) if given.isdigit() else MOST_PIXELS


def too_large(name: str, what: str) -> DataError:
    """The error of an image that is not read."""
    return DataError(
        f"{name}: {what}; images of more than {most_pixels():,} pixels, or {BYTES_OF_A_PIXEL} times as "
        "many bytes, are not read, for a small file can hold them and fill the memory. Cut it into smaller "
        f"images, or set the environment variable {VARIABLE} to a larger number"
    )


def check(name: str, shape: Sequence[int], itemsize: int) -> None:
    """Refuses an image that would not fit, before it is decoded.

    Args:
        name: of the image, for messages.
        shape: [H, W] or with channels, as the file says it.
        itemsize: bytes of a value.

    Raises:
        DataError: it is larger than the limits.
    """
    size = math.prod(shape) * itemsize
    if math.prod(shape[:2]) > most_pixels() or size > BYTES_OF_A_PIXEL * most_pixels():
        raise too_large(name, f"{'x'.join(map(str, shape))} values of {itemsize} bytes")
