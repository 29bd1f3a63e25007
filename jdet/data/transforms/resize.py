"""How images of any proportions become network inputs of a few fixed shapes.

Either every image is warped to one square, as SSD does it, or it keeps its proportions: it is resized by
its short and long side (Lin et al. 2017, FPN, sec. 5; the numbers as MMDetection rounds them) and lies in
the upper left corner of an input of one of a few shapes, for every shape is a compilation. Which shape
follows from the image's own height and width alone, so that it is known before the image is read
and does not change with the scales that training draws.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jdet.data.transforms import geometry
from jdet.data.transforms.geometry import Size
from jdet.types import ConfigError

MULTIPLE = 32
"""Sides of the shapes that are made up here: stride of the coarsest stage of a backbone."""

SQUARE = 1.12
"""Side of the square shape, in short sides: room for images up to this aspect."""


@dataclasses.dataclass(frozen=True)
class Resize:
    """What the network sees of images.

    Attributes:
        shapes: heights and widths of the network inputs, pixels.
        short: lengths of the short side, pixels; training draws one of them, or, where ``whole_range``,
            any whole number from the least to the largest. Empty: images are warped to ``shapes[0]``.
        long: what the long side may have at most.
        test_short: the short side where nothing is drawn.
        whole_range: see ``short``.
    """

    shapes: tuple[Size, ...]
    short: tuple[int, ...] = ()
    long: int = 0
    test_short: int = 0
    whole_range: bool = False

    @classmethod
    def square(cls, side: int) -> Resize:
        """Images warped to a square."""
        return cls(((side, side),))

    @classmethod
    def from_config(cls, config: Any) -> Resize:
        """Reads ``input_size`` and the group ``resize`` of a whole config, beside ``augment``.

        Raises:
            ConfigError: a value that cannot be.
        """
        group = config["resize"]
        if group["mode"] == "warp":
            return cls.square(config["input_size"])
        short, long = tuple(group["short"]), group["long"]
        if not short or not all(type(side) is int and 1 <= side <= long for side in short):
            raise ConfigError(
                f"config.resize.short={short!r} and long={long}; short must hold whole numbers from 1 to "
                "long, one at least"
            )
        test = group["test_short"] or max(short)
        if not 1 <= test <= long:
            raise ConfigError(f"config.resize.test_short={test}; it must lie in 1 … {long} (long)")
        if config["augment"]["rotate"]:
            raise ConfigError(
                f"config.augment.rotate={config['augment']['rotate']} turns images out of their shape; "
                "set it to 0, or config.resize.mode='warp'"
            )
        shapes = _shapes(group["shapes"]) or made_up(max(*short, test), long)
        return cls(shapes, short, long, test, group["sampling"] == "range")

    def scaled(self, factor: float) -> Resize:
        """Images at a multiple of the size of testing, in shapes whose sides are multiples of 32."""
        if factor == 1 or not self.keeps_ratio:
            return self
        short, long = (max(1, round(factor * side)) for side in (self.test_short, self.long))
        shapes = [(_up(factor * height), _up(factor * width)) for height, width in self.shapes]
        return Resize(tuple(dict.fromkeys(shapes)), (short,), long, short)

    @property
    def keeps_ratio(self) -> bool:
        """Images keep their proportions, and inputs have padding."""
        return bool(self.short)

    @property
    def largest(self) -> Size:
        """The shape of most pixels."""
        return max(self.shapes, key=math.prod)

    def shape_of(self, height: int, width: int) -> int:
        """Index of the shape for images of a size: the smallest that holds them at every scale.

        Where none does, the one in which they are largest.
        """
        if not self.keeps_ratio:
            return 0
        sides = self._scaled(height, width, max(*self.short, self.test_short))

        def rank(index: int) -> tuple[float, int]:
            shape = self.shapes[index]
            fit = min(1.0, shape[0] / sides[0], shape[1] / sides[1])
            return -fit, math.prod(shape)

        return min(range(len(self.shapes)), key=rank)

    def draw(self, rng: np.random.Generator) -> int:
        """A short side for training."""
        u = rng.random()
        if self.whole_range:
            low, high = min(self.short), max(self.short)
            return low + int(u * (high - low + 1))
        return self.short[int(u * len(self.short))]

    def content(self, height: int, width: int, shape: Size, short: int = 0) -> Size:
        """Height and width of what an image fills of a shape.

        Args:
            height: of the image, or of what is cut out of it, pixels.
            width: likewise.
            shape: of the network input.
            short: wanted length of the short side; 0: that of testing.
        """
        if not self.keeps_ratio:
            return shape
        sides = self._scaled(height, width, short or self.test_short)
        if sides[0] > shape[0] or sides[1] > shape[1]:
            factor = min(shape[0] / height, shape[1] / width)
            sides = int(height * factor), int(width * factor)
        return min(max(sides[0], 1), shape[0]), min(max(sides[1], 1), shape[1])

    def _scaled(self, height: int, width: int, short: int) -> Size:
        factor = min(short / min(height, width), self.long / max(height, width))
        return int(height * factor + 0.5) or 1, int(width * factor + 0.5) or 1

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """An image as testing shows it: uint8 [H, W, 3] to uint8 [*shape, 3], with its size int32 [2].

        By linear interpolation, as Caffe SSD and MMDetection; where a side shrinks more than threefold,
        by the mean over the covered area, since linear interpolation would read a fraction of the pixels.
        """
        height, width = image.shape[:2]
        shape = self.shapes[self.shape_of(height, width)]
        content = self.content(height, width, shape)
        kind = geometry.plain_interpolation(image, content[1], content[0])
        image = geometry.resize(image, content[1], content[0], kind)
        return geometry.pad(image, shape, (0.0, 0.0, 0.0)), np.array(content, np.int32)


def made_up(short: int, long: int) -> tuple[Size, ...]:
    """A landscape and a portrait shape for images of these sides, multiples of 32, and a square one.

    The square one is there only where it is smaller than they are.
    """
    low, high, middle = map(_up, (short, long, SQUARE * short))
    square = ((middle, middle),) if middle * middle < low * high else ()
    return tuple(dict.fromkeys(((low, high), (high, low), *square)))


def _up(side: float) -> int:
    """A side in whole pixels, brought up to a multiple."""
    return max(1, -(-round(side) // MULTIPLE)) * MULTIPLE


def _shapes(given: Sequence[Sequence[int]]) -> tuple[Size, ...]:
    for shape in given:
        if len(shape) != 2 or any(type(side) is not int or side < 1 for side in shape):
            raise ConfigError(
                f"config.resize.shapes holds {shape!r}; give heights and widths in pixels, such as "
                "((800, 1344), (1344, 800))"
            )
    return tuple(dict.fromkeys((height, width) for height, width in given))
