"""Values that were not measured: NaN, infinity, and the value by which a set marks them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def valid_values(values: np.ndarray, invalid: float | None) -> np.ndarray:
    """Which values were measured, bool of the same shape.

    Args:
        values: uint8, uint16 or float32.
        invalid: the value that stands for "nothing measured"; None: there is none. NaN and infinity are
            never valid.
    """
    if values.dtype.kind != "f":
        return np.ones(values.shape, np.bool_) if invalid is None else values != invalid
    valid = np.isfinite(values)
    if invalid is not None:
        valid &= values != values.dtype.type(invalid)
    return valid


def filled(image: np.ndarray, invalid: float | None, fill: Sequence[float]) -> np.ndarray:
    """An image whose invalid values are replaced, so that interpolation does not spread them.

    Args:
        image: uint8, uint16 or float32 [H, W, C]; not changed.
        invalid: as in ``valid_values``.
        fill: C values; rounded for whole numbers.

    Returns:
        A copy; ``image`` itself where all values are valid.
    """
    if invalid is None and image.dtype.kind != "f":
        return image
    valid = valid_values(image, invalid)
    if valid.all():
        return image
    colour = np.array(fill, np.float64)
    if image.dtype.kind != "f":
        ends = np.iinfo(image.dtype)
        colour = np.clip(np.rint(colour), ends.min, ends.max)
    return np.where(valid, image, colour.astype(image.dtype))
