"""Augmentation "detr": images resized and mirrored, half of them cut to a part first.

It is what the detectors on Swin transformers were trained with, after DETR (Carion et al. 2020).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jdet.data.transforms.augment import Augment
from jdet.data.transforms.element import Element, Operation
from jdet.data.transforms.geometry import Canvas
from jdet.data.transforms.resize import Resize
from jdet.types import ConfigError

ANYTHING = 1e-6
"""Share of its area that keeps an object in a part: MMDetection keeps what is left, however little."""


@dataclasses.dataclass(frozen=True)
class DETRAugment(Augment):
    """Mirrors images, and cuts a part of random height and width out of half of them.

    The part is drawn on the image as if its short side were resized to one of ``short``, or to less where
    its long side would come above ``long``; there each of the part's sides is a whole number between
    ``low`` and ``high``, or the image's where that is shorter. An image of 640×480, at 500, is 667×500, so
    that the part has 384 to 600 by 384 to 500 of these pixels. MMDetection resizes twice, which is done at
    once here, into the input that the whole image would have: a part that is upright in an image that is
    not becomes smaller there than its own shape would make it.

    Attributes:
        mean: as in ``Augment``.
        crop: probability of a part.
        short: short sides, pixels, of which one is drawn.
        long: most of the long side then, pixels.
        low: least side of a part, pixels.
        high: longest side of a part, pixels.
        flip: probability of a horizontal flip.

    Raises:
        ConfigError: a value is out of range; the message names the key.
    """

    crop: float = 0.5
    short: tuple[int, ...] = (400, 500, 600)
    long: int = 1333
    low: int = 384
    high: int = 600
    flip: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("crop", "flip"):
            self.require(0 <= getattr(self, key) <= 1, key, "in 0 … 1")
        sides = self.short and all(type(side) is int and side >= 1 for side in self.short)
        self.require(bool(sides), "short", "whole numbers from 1 on, such as (400, 500, 600)")
        self.require(self.long >= 1, "long", "1 or more")
        fine = 1 <= self.low <= self.high
        self.require(fine, "low", f"in 1 … {self.high} (config.augment.high)")

    def operations(self, resize: Resize) -> dict[str, Operation]:
        """As in ``Augment``."""
        if resize.redraws:
            raise ConfigError(
                "config.augment.name='detr' cuts images, and config.resize.name='fit_crop' does so too; "
                "take config.resize.name='keep_ratio', or config.augment.name='ssd'"
            )
        return {"crop": self._crop, "flip": self._flip} | resize.operations()

    def _crop(self, element: Element, rng: np.random.Generator) -> Element:
        fires, side, *draws = rng.random(6).tolist()
        if element.image is None or fires >= self.crop:
            return element
        height, width = element.image.shape[:2]
        short = self.short[int(side * len(self.short))]
        factor = min(short / min(height, width), self.long / max(height, width))
        whole = tuple(int(factor * length + 0.5) for length in (width, height))
        ends = []
        for length, extent, offset in zip(whole, draws[:2], draws[2:]):
            low, high = min(length, self.low), min(length, self.high)
            part = low + int(extent * (high - low + 1))
            start = int(offset * (length - part + 1))
            ends.append((start / length, (start + part) / length))
        (x1, x2), (y1, y2) = ends
        return element._replace(
            canvas=Canvas(width, height), patch=(x1, y1, x2, y2), least_share=ANYTHING
        )

    def _flip(self, element: Element, rng: np.random.Generator) -> Element:
        flip = rng.random() < self.flip
        return element._replace(orientation=element.orientation._replace(flip=flip))
