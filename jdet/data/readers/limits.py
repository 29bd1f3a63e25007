"""How large an image may be: a file of some kilobytes can hold billions of equal pixels."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence

from jdet.types import ConfigError, DataError

VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"
"""Environment variable with another limit than ``MOST_PIXELS``; OpenCV's own.

A number, or one with a unit of OpenCV: ``64MB`` are 64 * 2^20 pixels.
"""

MOST_PIXELS = 1 << 30
"""Of an image, where the environment says nothing: what OpenCV decodes."""

BYTES_OF_A_PIXEL = 8
"""So many bytes for each of these pixels is what an image takes at most: four channels of 16 bits."""


_UNITS = {"": 1, "KB": 1 << 10, "MB": 1 << 20}
"""Those of OpenCV (``ParseError`` in its ``core/src/system.cpp``), which ends the process on others."""


def most_pixels() -> int:
    """Pixels that an image may have.

    Raises:
        ConfigError: the environment does not say it as OpenCV reads it.
    """
    given = os.environ.get(VARIABLE, "")
    if not given:
        return MOST_PIXELS
    found = re.fullmatch(r"([0-9]{1,19})(|[KM][Bb]|[km]b)", given)
    if not found:
        raise ConfigError(
            f"the environment variable {VARIABLE}={given} is no number of pixels as OpenCV reads it; set "
            "it to digits, such as 4000000000, with KB or MB after them for 2^10 or 2^20 times as many"
        )
    return int(found[1]) * _UNITS[found[2].upper()]


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
