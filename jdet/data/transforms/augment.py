"""Build kind ``augment``: random changes to images in training.

A class of this kind is a frozen dataclass: its fields are the keys of ``config.augment``, and it checks
them itself. The base class is the row "none".
"""

from __future__ import annotations

import dataclasses

from jdet.data.transforms.element import Operation
from jdet.data.transforms.resize import Resize
from jdet.types import require


@dataclasses.dataclass(frozen=True)
class Augment:
    """No augmentation: images are resized, nothing else.

    Attributes:
        mean: RGB colour of what lies beside the image in the network input: a zoomed-out canvas, padding,
            and the whole of an image that cannot be read.

    Raises:
        ConfigError: a value is out of range; the message names the key.
    """

    mean: tuple[float, float, float] = (123.0, 117.0, 104.0)

    def __post_init__(self) -> None:
        colour = len(self.mean) == 3 and all(0 <= level <= 255 for level in self.mean)
        self.require(colour, "mean", "three numbers in 0 … 255 (RGB)")

    @property
    def fill(self) -> tuple[float, float, float]:
        """``mean`` as three floats."""
        red, green, blue = map(float, self.mean)
        return red, green, blue

    def operations(self, resize: Resize) -> dict[str, Operation]:
        """The random operations of training in their order, by the name that seeds each.

        An augmentation that draws anything includes ``resize.operations()``, at the end. Adding or
        reordering operations leaves the random numbers of the others as they were.

        Args:
            resize: what the network sees of images.

        Raises:
            ConfigError: an operation and the resize do not go together.
        """
        del resize
        return {}

    def require(self, condition: bool, key: str, expected: str) -> None:
        """Checks the field ``key``; see ``jdet.types.require``."""
        require(condition, f"config.augment.{key}", getattr(self, key), expected)
