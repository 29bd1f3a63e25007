"""Augmentation "lsj": large-scale jitter (Ghiasi et al. 2021, "Simple Copy-Paste", sec. 3).

Images are resized by a factor drawn from a wide range, and a part of the size of the network input is cut
out of those that are larger. The order of the operations and their rounding are MMDetection's.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jdet.data.transforms import instance_masks
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.element import Element, Operation
from jdet.data.transforms.finish import locate
from jdet.data.transforms.geometry import Window
from jdet.data.transforms.resize import Resize
from jdet.types import ConfigError, DataError

LEAST_SIDE = 0.01
"""Shortest side of an object, pixels of the network input, below which it is dropped (MMDetection)."""


@dataclasses.dataclass(frozen=True)
class LargeScaleJitter(Augment):
    """Images at a random scale, cut to the network input or padded to it, half of them mirrored.

    For a network input of H×W pixels a factor α is drawn from [low, high), and the image, which keeps its
    proportions, is made as large as fits into int(α·H)×int(α·W) pixels. Of sides longer than the network
    input a part is taken, at a place drawn from whole pixels; what is left of the input at the right and
    at the bottom is padding. An image of 640×480 in an input of 1024×1024 becomes 102×77 at α = 0.1, and
    1024×1024 out of 2048×1536 at α = 2.

    Objects of which the part shows anything stay. Where masks are read, the box of an object that the part
    cuts is that of what the part shows of its mask; one of whose mask it shows nothing is dropped.

    The resize gives the network inputs alone: what it draws in training is not drawn. Evaluation shows
    images as it says.

    Attributes:
        mean: as in ``Augment``.
        low: least α.
        high: what α stays below.
        flip: probability of a horizontal flip.

    Raises:
        ConfigError: a value is out of range; the message names the key.
    """

    low: float = 0.1
    high: float = 2.0
    flip: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            0.05 <= self.low <= self.high, "low", f"in 0.05 … {self.high} (config.augment.high)"
        )
        self.require(self.high <= 10, "high", "at most 10")
        self.require(0 <= self.flip <= 1, "flip", "in 0 … 1")

    def operations(self, resize: Resize) -> dict[str, Operation]:
        """As in ``Augment``.

        Raises:
            ConfigError: the resize changes proportions, or draws scales too.
        """
        drawn = len(set(getattr(resize, "short", ()))) > 1
        if resize.redraws or drawn or not resize.keeps_ratio:
            raise ConfigError(
                "config.augment.name='lsj' resizes, cuts and pads images that keep their proportions; take "
                "config.resize.name='keep_ratio' with one length in config.resize.short, or "
                "config.augment.name='ssd'"
            )

        def jitter(element: Element, rng: np.random.Generator) -> Element:
            alpha, *places = rng.random(3).tolist()
            if element.image is None:
                return element
            shape = element.shape or resize.shapes[0]
            height, width = element.image.shape[:2]
            alpha = self.low + (self.high - self.low) * alpha
            factor = min(int(alpha * shape[0]) / height, int(alpha * shape[1]) / width)
            size = (max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1))
            part = (min(size[0], shape[0]), min(size[1], shape[1]))
            y, x = (int(u * (whole - cut + 1)) for u, whole, cut in zip(places, size, part))
            element = element._replace(window=Window(size, y, x, part))
            return element._replace(boxes=_seen_boxes(element, resize))

        def flip(element: Element, rng: np.random.Generator) -> Element:
            fires = rng.random() < self.flip
            return element._replace(orientation=element.orientation._replace(flip=fires))

        return {"jitter": jitter, "flip": flip}


def _seen_boxes(element: Element, resize: Resize) -> np.ndarray:
    """Boxes of what the network sees of the objects, float32 [n, 4] in pixels of the image.

    Those of objects that do not stay have no area.
    """
    if not len(element.boxes) or element.image is None:
        return element.boxes
    location = locate(element, resize)
    parts = instance_masks.visible_parts(element.boxes, location.placement, location.content)
    cut = np.flatnonzero((parts != element.boxes).any(axis=1))
    if element.masks is not None and len(cut):
        y, x, *size = element.cut_from or (0, 0, *element.image.shape[:2])
        corner, masks = np.array([x, y, x, y]), [element.masks[i] for i in cut]
        try:
            seen = instance_masks.mask_boxes(masks, parts[cut] + corner, (size[0], size[1]))
        except ValueError as error:
            raise DataError(f"image {element.id}: {error}") from error
        parts[cut] = seen - corner
    boxes = parts.astype(np.float32)
    (x0, y0, x1, y1), (left, top, right, bottom) = location.placement
    scale = np.array([(right - left) / (x1 - x0), (bottom - top) / (y1 - y0)])
    boxes[((boxes[:, 2:] - boxes[:, :2]) * scale < LEAST_SIDE).any(axis=1)] = 0
    return boxes
