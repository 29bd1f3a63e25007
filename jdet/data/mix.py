"""Images of several: mosaic, mixup and copy-paste, the first random operations of training.

Other images are read where one is mixed, and drawn uniformly from all; those that cannot be read leave
their place empty, or the first image as it is. What is drawn for an image depends on the seed and its
position in the stream alone, as everything in the pipeline.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jdet.data.reader import Reader
from jdet.data.tiles import RandomTile
from jdet.data.transforms import joined
from jdet.data.transforms.element import Element, Operation
from jdet.data.transforms.pasted import pasted
from jdet.data.transforms.resample import Fill
from jdet.types import require


@dataclasses.dataclass(frozen=True)
class Mix:
    """What of other images comes into an image; the group ``data.mix``.

    Copy-paste comes first, then the mosaic, then mixup: with all three an image can be a mosaic whose
    first image has objects of a fifth, mixed with a sixth.

    Attributes:
        mosaic: probability of an image of four (``joined.mosaic``).
        mixup: probability of mixing with another image in equal shares (``joined.mixed``).
        copy_paste: probability of pasting objects of another image (``pasted.pasted``), each of which is
            taken or not at even odds.
        low: least zoom of a mosaic, and least size of the other image of mixup and copy-paste, in sizes
            that fit; YOLOX's ``mixup_scale``.
        high: the largest.
        share: of its area that an object must have left to stay.
        side: shortest width and height of an object that is cut, pixels.
        stop: optimiser step from which nothing is mixed (YOLOX does without it in the last 15 of 300
            epochs); 0: it is mixed until the end.

    Raises:
        ConfigError: ``low`` is larger than ``high``.
    """

    mosaic: float = 0.0
    mixup: float = 0.0
    copy_paste: float = 0.0
    low: float = 0.5
    high: float = 1.5
    share: float = 0.2
    side: float = 2.0
    stop: int = 0

    def __post_init__(self) -> None:
        require(
            self.low <= self.high, "config.data.mix.low", self.low, f"at most high={self.high:g}"
        )

    @property
    def fires(self) -> bool:
        """Whether anything is ever mixed."""
        return bool(self.mosaic or self.mixup or self.copy_paste)

    def operations(
        self, reader: Reader, fill: Fill, tile: RandomTile | None
    ) -> dict[str, Operation]:
        """The operations in their order, by the name that seeds each.

        Args:
            reader: of the training images.
            fill: C values where no image is.
            tile: cuts a tile out of every other image too.
        """
        found: dict[str, Operation] = {}
        for name, kind in KINDS.items():
            if getattr(self, name):
                found[name] = kind(self, reader, fill, tile)
        return found


@dataclasses.dataclass(frozen=True)
class Stop:
    """Marks the elements from a place in the stream on as those into which nothing is mixed.

    Attributes:
        first: images ahead of the first of them.
    """

    first: int

    def __call__(self, index: int, element: Element) -> Element:
        """An element by its place in the stream."""
        return element._replace(alone=index >= self.first)


@dataclasses.dataclass(frozen=True)
class _Mixing:
    """A random operation that reads other images.

    Attributes:
        mix: what is drawn.
        reader: of the training images.
        fill: C values where no image is.
        tile: cuts a tile out of every other image.
    """

    mix: Mix
    reader: Reader
    fill: Fill
    tile: RandomTile | None

    @property
    def left(self) -> joined.Left:
        """Which objects stay."""
        return joined.Left(self.mix.share, self.mix.side)

    def other(self, rng: np.random.Generator) -> Element:
        """Another image, drawn uniformly; as any it may be the same one."""
        element = self.reader[int(rng.integers(len(self.reader)))]
        return self.tile(element, rng) if self.tile else element

    def factor(self, u: float) -> float:
        """A zoom or size from ``low`` to ``high``."""
        return self.mix.low + (self.mix.high - self.mix.low) * u

    def place(self, first: Element, other: Element, rng: np.random.Generator) -> joined.Place:
        """Where another image lies on the first: in it, or over all of it along a side that is longer."""
        u, y, x, flip = rng.random(4).tolist()
        assert first.image is not None and other.image is not None
        frame = first.image.shape[:2]
        size = joined.fitted(other.image, frame, self.factor(u))
        corner = [
            int(np.floor(at * (whole - side + 1)))
            if side <= whole
            else -int(at * (side - whole + 1))
            for at, whole, side in zip((y, x), frame, size, strict=True)
        ]
        return joined.Place(size, corner[0], corner[1], flip < 0.5)


class Mosaic(_Mixing):
    """Puts an image among three others."""

    def __call__(self, element: Element, rng: np.random.Generator) -> Element:
        """Returns the element, or one with objects of up to four images."""
        if rng.random() >= self.mix.mosaic or element.image is None or element.alone:
            return element
        zoom, y, x, window_y, window_x = rng.random(5).tolist()
        return joined.mosaic(
            (element, *(self.other(rng) for _ in range(3))),
            centre=(0.25 + y / 2, 0.25 + x / 2),
            window=(window_y, window_x),
            zoom=self.factor(zoom),
            fill=self.fill,
            left=self.left,
        )


class Mixup(_Mixing):
    """Mixes an image with another."""

    def __call__(self, element: Element, rng: np.random.Generator) -> Element:
        """Returns the element, or one with the objects of two."""
        if rng.random() >= self.mix.mixup or element.image is None or element.alone:
            return element
        other = self.other(rng)
        if other.image is None:
            return element
        return joined.mixed(element, other, self.place(element, other, rng), self.fill, self.left)


class CopyPaste(_Mixing):
    """Pastes objects of another image."""

    def __call__(self, element: Element, rng: np.random.Generator) -> Element:
        """Returns the element, or one with objects of another on it."""
        if rng.random() >= self.mix.copy_paste or element.image is None or element.alone:
            return element
        other = self.other(rng)
        if other.image is None:
            return element
        place = self.place(element, other, rng)
        return pasted(element, other, place, rng.random(len(other.boxes)) < 0.5, self.left)


KINDS: dict[str, Any] = {"copy_paste": CopyPaste, "mosaic": Mosaic, "mixup": Mixup}
"""In the order in which they are applied."""
