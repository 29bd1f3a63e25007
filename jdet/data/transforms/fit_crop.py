"""Resize "fit_crop": small squares cut at random out of images whose scale is drawn too.

It is the input of direct detection pre-training (Li et al. 2021, "Rethinking Training from Scratch for
Object Detection", sec. 3.1), in the form of its released code: there images keep their proportions, while
the paper writes that they become squares.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from jdet.data.transforms import geometry
from jdet.data.transforms.element import Element, Operation
from jdet.data.transforms.geometry import Canvas, Window
from jdet.data.transforms.keep_ratio import MULTIPLE
from jdet.data.transforms.resample import Size
from jdet.data.transforms.resize import Resize
from jdet.types import require


@dataclasses.dataclass(frozen=True)
class FitCrop(Resize):
    """Images whose long side has about ``input_size`` pixels, cut to that and padded to a square.

    With L = ``input_size``, training draws α from [low, high) and resizes the image so that its long side
    has int(L·α) pixels. Of sides that exceed L, a part of L pixels is taken, at a place drawn from whole
    pixels. What is left of the square at the right and at the bottom is padding. An image of 640×480 at
    L = 448 becomes 358×269 at α = 0.8, and 448×403 out of 537×403 at α = 1.2.

    Objects are clipped to the part, and stay where anything of them is left, however little. Testing shows
    whole images, at α = 1.

    Attributes:
        input_size: L, pixels; ``config.input_size``, a multiple of 32.
        low: least α.
        high: what α stays below.
        square: resize to int(L·α) by int(L·α) pixels whatever the proportions, as the paper writes.
        redraws: how often another image is drawn in place of one of which the part holds no object.

    Raises:
        ConfigError: a value is out of range; the message names the key.
    """

    keeps_ratio: ClassVar[bool] = True
    input_size: int = 448
    low: float = 0.8
    high: float = 1.2
    square: bool = False
    redraws: int = 10

    def __post_init__(self) -> None:
        near = max(round(self.input_size / MULTIPLE), 1) * MULTIPLE
        require(
            self.input_size % MULTIPLE == 0,
            "config.input_size",
            self.input_size,
            f"a multiple of {MULTIPLE} with config.resize.name='fit_crop', such as {near}",
        )
        for key, fine, expected in (
            ("low", 0.1 <= self.low <= self.high, f"in 0.1 … {self.high} (config.resize.high)"),
            ("high", self.high <= 10, "at most 10"),
            ("redraws", 0 <= self.redraws <= 1000, "in 0 … 1000"),
        ):
            require(fine, f"config.resize.{key}", getattr(self, key), expected)

    @property
    def shapes(self) -> tuple[Size, ...]:
        """The square alone."""
        return ((self.input_size, self.input_size),)

    def scaled(self, factor: float) -> Resize:
        """Squares with a multiple of the side, rounded to a multiple of 32."""
        side = max(round(factor * self.input_size / MULTIPLE), 1) * MULTIPLE
        return dataclasses.replace(self, input_size=side)

    def content(self, height: int, width: int, shape: Size, scale: float = 0) -> Size:
        """As in ``Resize``; ``scale`` is α."""
        rows, columns = self.resized(height, width, scale or 1.0)
        return min(rows, shape[0]), min(columns, shape[1])

    def resized(self, height: int, width: int, alpha: float) -> Size:
        """Height and width of a whole image before a part of it is taken."""
        side = max(int(self.input_size * alpha), 1)
        if self.square:
            return side, side
        factor = side / max(height, width)
        return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)

    def operations(self) -> dict[str, Operation]:
        """Draws α and the place of the part."""
        return {"fit_crop": self._draw}

    def _draw(self, element: Element, rng: np.random.Generator) -> Element:
        alpha, *places = rng.random(3).tolist()
        if element.image is None:
            return element
        alpha = self.low + (self.high - self.low) * alpha
        height, width = element.image.shape[:2]
        canvas = element.canvas or Canvas(width, height)
        size = self.resized(*geometry.patch_size(canvas, element.patch), alpha)
        part = min(size[0], self.input_size), min(size[1], self.input_size)
        y, x = (int(u * (whole - cut + 1)) for u, whole, cut in zip(places, size, part))
        return element._replace(window=Window(size, y, x, part))

    def test_setting(self) -> str:
        """As in ``Resize``."""
        return f"config.input_size={self.input_size}"

    def describe(self) -> str:
        """One line: sides, and what becomes of images without an object."""
        side = self.input_size
        what = "squares" if self.square else "a long side"
        again = f", another image up to {self.redraws} times where none holds an object"
        return (
            f"images resized to {what} of {int(side * self.low)} to {int(side * self.high)} pixels in "
            f"training and of {side} at evaluation, parts of {side}×{side} at most, padded to that"
            f"{again if self.redraws else ''}"
        )
