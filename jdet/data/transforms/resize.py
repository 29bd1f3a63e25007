"""Build kind ``resize``: how images of any size become network inputs of a few fixed shapes.

A class of this kind is a frozen dataclass: its fields are the keys of ``config.resize``, except
``input_size``, which ``jdet.build`` fills in, and it checks them itself.
"""

from __future__ import annotations

import abc
import math
from typing import ClassVar

import numpy as np

from jdet.data.transforms import resample
from jdet.data.transforms.element import Operation
from jdet.data.transforms.resample import Size
from jdet.types import ConfigError


class Resize(abc.ABC):
    """What the network sees of images.

    Which shape an image gets follows from its own height and width alone, so that it is known before the
    image is read and does not change with what training draws.

    Attributes:
        keeps_ratio: images keep their proportions, and what is left of an input is padding, at its right
            and at its bottom. The images of a batch then have one shape (``jdet.data.batching``).
    """

    keeps_ratio: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def shapes(self) -> tuple[Size, ...]:
        """Heights and widths of the network inputs, pixels; each is compiled once."""

    @property
    def redraws(self) -> int:
        """How often training draws another image in place of one of which it would see no object."""
        return 0

    @property
    def largest(self) -> Size:
        """The shape with the most pixels."""
        return max(self.shapes, key=math.prod)

    def shape_of(self, height: int, width: int) -> int:
        """Index in ``shapes`` of the shape for images of a size (pixels)."""
        del height, width
        return 0

    @abc.abstractmethod
    def content(self, height: int, width: int, shape: Size, scale: float = 0) -> Size:
        """Height and width of the part of a network input that an image fills.

        Args:
            height: of the image, or of what is cut out of it, pixels.
            width: likewise.
            shape: of the network input.
            scale: ``Element.scale``, what training drew; 0: as testing shows the image.
        """

    def operations(self) -> dict[str, Operation]:
        """What is drawn for an image in training, by the name that seeds each operation."""
        return {}

    def scaled(self, factor: float) -> Resize:
        """Images at a multiple of the size of testing, for multi-scale testing.

        Raises:
            ConfigError: the factor is not 1, and the class does not say how it scales.
        """
        if factor != 1:
            name = type(self).__name__
            raise ConfigError(
                f"config.eval.tta: a pass shows images at {factor:g} times the size of testing, which "
                f"{name} (config.resize.name) does not provide; define {name}.scaled(factor), or set "
                "config.eval.tta.preset='flip'"
            )
        return self

    @abc.abstractmethod
    def test_setting(self) -> str:
        """The config key that decides how large testing shows images, with its value."""

    def describe(self) -> str:
        """One line for the log; "" where the size of the input says it all."""
        return ""

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """An image as testing shows it: [H, W, C] to [*shape, C] of its type, with its size int32 [2]."""
        height, width = image.shape[:2]
        shape = self.shapes[self.shape_of(height, width)]
        return fit(image, self.content(height, width, shape), shape)


def fit(image: np.ndarray, content: Size, shape: Size) -> tuple[np.ndarray, np.ndarray]:
    """Resizes an image without randomness and pads it with zeros.

    By linear interpolation, as Caffe SSD and MMDetection; where a side shrinks more than threefold, by the
    mean over the covered area, since linear interpolation would read a fraction of the pixels.

    Args:
        image: [H, W, C], uint8, uint16 or float32.
        content: height and width of the resized image.
        shape: height and width of the network input.

    Returns:
        [*shape, C] of the image's type, and ``content`` as int32 [2].
    """
    kind = resample.plain_interpolation(image, content[1], content[0])
    image = resample.resize(image, content[1], content[0], kind)
    return resample.pad(image, shape, (0.0,) * image.shape[2]), np.array(content, np.int32)
