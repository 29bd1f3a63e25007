"""An image as its file has it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Stored(NamedTuple):
    """Values of a file, of its own type and number of channels, upright.

    Attributes:
        pixels: [H, W, C] of any type of numbers.
        colour: the first three channels are red, green and blue.
        alpha: the last channel is the opacity.
    """

    pixels: np.ndarray
    colour: bool = False
    alpha: bool = False

    def without_alpha(self) -> Stored:
        """The same without an alpha channel, its colours as stored."""
        return Stored(self.pixels[..., :-1], self.colour) if self.alpha else self

    @property
    def opaque(self) -> bool:
        """Whether there is no alpha channel, or one that says nothing."""
        if not self.alpha:
            return True
        kind = self.pixels.dtype
        top = np.iinfo(kind).max if kind.kind in "iu" else 1
        return bool((self.pixels[..., -1] == top).all())


def with_channels(pixels: np.ndarray) -> np.ndarray:
    """[H, W] or [H, W, C] as [H, W, C]."""
    return pixels[..., None] if pixels.ndim == 2 else pixels
