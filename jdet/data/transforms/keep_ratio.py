"""Resize "keep_ratio": images keep their proportions inside padded inputs of a few shapes.

Images are resized by their short and long side (Lin et al. 2017, FPN, sec. 5) and lie in the upper left
corner of the network input. Inputs have one of a few shapes, because each shape
is a compilation.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import numpy as np

from jdet.data.transforms.element import Element, Operation
from jdet.data.transforms.resample import Size
from jdet.data.transforms.resize import Resize
from jdet.types import ConfigError, require

MULTIPLE = 32
"""Divisor of the sides of derived shapes: stride of the coarsest stage of a backbone."""

SQUARE = 1.12
"""Side of the derived square shape in short sides; it holds images up to this aspect ratio."""

LONGEST = 16_384
"""Pixels that ``long`` may be."""


@dataclasses.dataclass(frozen=True)
class KeepRatio(Resize):
    """Images that keep their proportions (docs/input_sizes.md).

    ``config.input_size`` then only lays out the model.

    Attributes:
        short: lengths of the short side, pixels; training draws from them.
        sampling: "list": one of ``short``; "range": any whole number from its least to its largest.
        test_short: the short side at evaluation and prediction, pixels; a given 0 becomes the largest of
            ``short``.
        long: largest long side, pixels.
        rounding: "nearest": both sides are rounded to whole pixels, as in MMDetection; "down": their
            fractions are dropped, as in torchvision, where 37.5 pixels are 37, and a short side of 800 can
            become 799 because 800 / h · h is a little less.
        shapes: heights and widths of the network inputs, pixels; a given () becomes a landscape, a
            portrait and a square shape derived from these sides (``derived_shapes``).

    Raises:
        ConfigError: a value is out of range; the message names the key.
    """

    keeps_ratio: ClassVar[bool] = True
    short: tuple[int, ...] = (800,)
    sampling: str = "list"
    test_short: int = 0
    long: int = 1333
    rounding: str = "nearest"
    shapes: tuple[Size, ...] = ()

    def __post_init__(self) -> None:
        self._require(1 <= self.long <= LONGEST, "long", f"in 1 … {LONGEST}")
        sides = self.short and all(type(s) is int and 1 <= s <= self.long for s in self.short)
        self._require(
            sides, "short", f"whole numbers in 1 … {self.long} (config.resize.long), one at least"
        )
        self._require(self.sampling in ("list", "range"), "sampling", "'list' or 'range'")
        self._require(self.rounding in ("nearest", "down"), "rounding", "'nearest' or 'down'")
        self._require(
            0 <= self.test_short <= self.long,
            "test_short",
            f"in 0 … {self.long} (config.resize.long)",
        )
        for shape in self.shapes:
            pair = len(shape) == 2 and all(type(side) is int and side >= 1 for side in shape)
            self._require(
                pair, "shapes", "heights and widths in pixels, such as ((800, 1344), (1344, 800))"
            )
        object.__setattr__(self, "short", tuple(self.short))
        object.__setattr__(self, "test_short", self.test_short or max(self.short))
        shapes = tuple(dict.fromkeys((height, width) for height, width in self.shapes))
        shapes = shapes or derived_shapes(max(*self.short, self.test_short), self.long)
        object.__setattr__(self, "shapes", shapes)

    def _require(self, condition: object, key: str, expected: str) -> None:
        require(bool(condition), f"config.resize.{key}", getattr(self, key), expected)

    def scaled(self, factor: float) -> Resize:
        """Images at a multiple of the size of testing, in shapes whose sides are multiples of 32.

        Raises:
            ConfigError: the long side exceeds ``LONGEST``.
        """
        if factor == 1:
            return self
        short, long = (max(1, round(factor * side)) for side in (self.test_short, self.long))
        if long > LONGEST:
            most = math.floor(100 * LONGEST / self.long) / 100
            raise ConfigError(
                f"config.eval.tta: a pass shows images at {factor:g} times the size of testing, a long "
                f"side of {long} pixels, which may be {LONGEST}; take factors of at most {most:g} in "
                "config.eval.tta.passes"
            )
        shapes = tuple((_up(factor * height), _up(factor * width)) for height, width in self.shapes)
        return dataclasses.replace(self, short=(short,), test_short=short, long=long, shapes=shapes)

    def shape_of(self, height: int, width: int) -> int:
        """Index of the shape for images of a size: the smallest that holds them at every scale.

        Where none does, the one in which they are largest.
        """
        sides = self._scaled(height, width, max(*self.short, self.test_short))

        def rank(index: int) -> tuple[float, int]:
            shape = self.shapes[index]
            fit = min(1.0, shape[0] / sides[0], shape[1] / sides[1])
            return -fit, math.prod(shape)

        return min(range(len(self.shapes)), key=rank)

    def operations(self) -> dict[str, Operation]:
        """Draws the short side, which the element carries as its ``scale``."""

        def scale(element: Element, rng: np.random.Generator) -> Element:
            return element._replace(scale=self.draw(rng))

        return {"scale": scale}

    def draw(self, rng: np.random.Generator) -> int:
        """A short side for training."""
        u = rng.random()
        if self.sampling == "range":
            low, high = min(self.short), max(self.short)
            return low + int(u * (high - low + 1))
        return self.short[int(u * len(self.short))]

    def content(self, height: int, width: int, shape: Size, scale: float = 0) -> Size:
        """As in ``Resize``; ``scale`` is the wanted length of the short side."""
        sides = self._scaled(height, width, scale or self.test_short)
        if sides[0] > shape[0] or sides[1] > shape[1]:
            factor = min(shape[0] / height, shape[1] / width)
            sides = int(height * factor), int(width * factor)
        return min(max(sides[0], 1), shape[0]), min(max(sides[1], 1), shape[1])

    def _scaled(self, height: int, width: int, short: float) -> Size:
        factor = min(short / min(height, width), self.long / max(height, width))
        more = 0.5 if self.rounding == "nearest" else 0.0
        return int(height * factor + more) or 1, int(width * factor + more) or 1

    def test_setting(self) -> str:
        """As in ``Resize``."""
        return f"config.resize.test_short={self.test_short}"

    def describe(self) -> str:
        """One line: sides and shapes."""
        ends = f"{min(self.short)} to {max(self.short)}"
        short = ends if self.sampling == "range" else " or ".join(map(str, self.short))
        inputs = ", ".join(f"{height}×{width}" for height, width in self.shapes)
        return (
            f"images keep their proportions: short side {short}, long side at most {self.long}, inputs "
            f"of {inputs}"
        )


def derived_shapes(short: int, long: int) -> tuple[Size, ...]:
    """A landscape and a portrait shape for images of these sides, multiples of 32, and a square one.

    The square one is there only where it is smaller than they are.
    """
    low, high, middle = map(_up, (short, long, SQUARE * short))
    square = ((middle, middle),) if middle * middle < low * high else ()
    return tuple(dict.fromkeys(((low, high), (high, low), *square)))


def _up(side: float) -> int:
    """A side in whole pixels, brought up to a multiple."""
    return max(1, -(-round(side) // MULTIPLE)) * MULTIPLE
