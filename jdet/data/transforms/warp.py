"""Resize "warp": every image fills the square network input, whatever its proportions, as in SSD."""

from __future__ import annotations

import dataclasses

from jdet.data.transforms.resample import Size
from jdet.data.transforms.resize import Resize


@dataclasses.dataclass(frozen=True)
class Warp(Resize):
    """Images warped to a square.

    Attributes:
        input_size: side of the network input, pixels; ``config.input_size``.
    """

    input_size: int

    @property
    def shapes(self) -> tuple[Size, ...]:
        """The square alone."""
        return ((self.input_size, self.input_size),)

    def scaled(self, factor: float) -> Resize:
        """A square with a multiple of the side."""
        return dataclasses.replace(self, input_size=max(1, round(factor * self.input_size)))

    def content(self, height: int, width: int, shape: Size, scale: float = 0) -> Size:
        """The whole shape."""
        del height, width, scale
        return shape

    def test_setting(self) -> str:
        """As in ``Resize``."""
        return f"config.input_size={self.input_size}"
