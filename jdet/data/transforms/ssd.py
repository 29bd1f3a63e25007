"""Augmentation "ssd": the random operations of the Caffe SSD training scripts.

Order and numbers are those of the "new" augmentation, also used by ScratchDet and DSOD: photometric
distortion, zoom-out, batch crop, resize, flip. An affine map or perspective of the whole image and cut-out
can come before them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jdet.data.transforms import geometry, perspective
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.element import Element, Operation
from jdet.data.transforms.photometric import draw_distortion
from jdet.data.transforms.resample import INTERPOLATIONS
from jdet.data.transforms.resize import Resize
from jdet.types import ConfigError


@dataclasses.dataclass(frozen=True)
class SSDAugment(Augment):
    """SSD's training augmentation (Liu et al. 2016, sec. 2.2 and 3.6).

    Attributes:
        mean: as in ``Augment``.
        photometric: probability of each photometric operation.
        expand: probability of zooming out.
        expand_ratio: largest zoom-out.
        crop: whether the seven-sampler batch crop is drawn.
        crop_scale: smallest relative side of a crop.
        crop_share: an object stays in a crop that holds at least this share of its area; 0: one that holds
            its centre, as in SSD.
        crop_side: an object whose width or height is shorter after a crop is dropped, pixels of the network
            input; 0: none is.
        flip: probability of a horizontal flip.
        flip_vertical: probability of a vertical one; for images without an up, such as boards.
        rotate: probability of a quarter turn; 0.5 with both flips makes all eight orientations alike.
        warp: probability of an affine map with perspective, about the middle of the image, which keeps its
            size.
        warp_rotate: largest angle either way, degrees.
        warp_scale: factors are drawn from 1 - warp_scale … 1 + warp_scale.
        warp_shear: largest angle of each axis, degrees.
        warp_translate: largest shift along each axis, share of the side.
        warp_perspective: largest change of the scale from the middle to an edge, along each axis.
        warp_share: an object stays if this share of the area of its mapped box lies in the image.
        warp_side: an object whose width or height is shorter then is dropped, pixels of the image.
        cutout: probability of hiding squares of the image; objects stay.
        cutout_count: most squares.
        cutout_side: longest side of a square, share of the image's shorter one; from half of it on.
        interpolation: "random" (one of five kinds per image), or one kind for all: "linear", "area",
            "nearest", "cubic", "lanczos4".

    Raises:
        ConfigError: a value is out of range; the message names the key.
    """

    photometric: float = 0.5
    expand: float = 0.5
    expand_ratio: float = 4.0
    crop: bool = True
    crop_scale: float = 0.3
    crop_share: float = 0.0
    crop_side: float = 0.0
    flip: float = 0.5
    flip_vertical: float = 0.0
    rotate: float = 0.0
    warp: float = 0.0
    warp_rotate: float = 10.0
    warp_scale: float = 0.25
    warp_shear: float = 5.0
    warp_translate: float = 0.1
    warp_perspective: float = 0.1
    warp_share: float = 0.3
    warp_side: float = 2.0
    cutout: float = 0.0
    cutout_count: int = 3
    cutout_side: float = 0.3
    interpolation: str = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("photometric", "expand", "flip", "flip_vertical", "rotate", "warp", "cutout"):
            self.require(0 <= getattr(self, key) <= 1, key, "in 0 … 1")
        self.require(1 <= self.expand_ratio <= 16, "expand_ratio", "in 1 … 16")
        self.require(0.01 <= self.crop_scale <= 1, "crop_scale", "in 0.01 … 1")
        self.require(0 <= self.crop_share <= 1, "crop_share", "in 0 … 1")
        self.require(0 <= self.crop_side <= 4096, "crop_side", "in 0 … 4096")
        for key, high in (
            ("warp_rotate", 180),
            ("warp_scale", 0.9),
            ("warp_shear", 45),
            ("warp_translate", 1),
            ("warp_perspective", 0.4),  # below a half, or the plane of the image could tip over
            ("warp_share", 1),
            ("warp_side", 4096),
            ("cutout_side", 1),
        ):
            self.require(0 <= getattr(self, key) <= high, key, f"in 0 … {high}")
        self.require(1 <= self.cutout_count <= 100, "cutout_count", "in 1 … 100")
        kinds = ("random", *INTERPOLATIONS)
        self.require(self.interpolation in kinds, "interpolation", f"one of {', '.join(kinds)}")

    def operations(self, resize: Resize) -> dict[str, Operation]:
        """As in ``Augment``."""
        if self.rotate and resize.keeps_ratio:
            raise ConfigError(
                f"config.augment.rotate={self.rotate} turns images out of the shape in which "
                "config.resize keeps their proportions; set it to 0, or config.resize.name='warp'"
            )
        chain: dict[str, Operation] = {"warp": self._warp} if self.warp else {}
        if self.cutout:
            chain["cutout"] = self._cutout
        chain |= {"photometric": self._photometric, "expand": self._expand}
        if self.crop:
            chain["crop"] = self._crop
        chain |= {"interpolation": self._interpolation, "flip": self._flip}
        if self.flip_vertical:
            chain["flip_vertical"] = self._flip_vertical
        if self.rotate:
            chain["rotate"] = self._rotate
        return chain | resize.operations()

    def _warp(self, element: Element, rng: np.random.Generator) -> Element:
        fires = rng.random() < self.warp
        if element.image is None or not fires:
            return element
        matrix = perspective.draw_map(
            rng,
            element.image.shape[:2],
            rotate=self.warp_rotate,
            scale=self.warp_scale,
            shear=self.warp_shear,
            translate=self.warp_translate,
            perspective=self.warp_perspective,
        )
        return perspective.mapped(element, matrix, share=self.warp_share, side=self.warp_side)

    def _cutout(self, element: Element, rng: np.random.Generator) -> Element:
        fires = rng.random() < self.cutout
        if element.image is None or not fires:
            return element
        size = element.image.shape[:2]
        holes = perspective.draw_holes(rng, size, count=self.cutout_count, side=self.cutout_side)
        return element._replace(holes=holes)

    def _photometric(self, element: Element, rng: np.random.Generator) -> Element:
        return element._replace(distortion=draw_distortion(rng, self.photometric))

    def _expand(self, element: Element, rng: np.random.Generator) -> Element:
        if element.image is None:
            return element
        height, width = element.image.shape[:2]
        canvas = geometry.expand(
            rng, width, height, probability=self.expand, max_ratio=self.expand_ratio
        )
        return element._replace(canvas=canvas)

    def _crop(self, element: Element, rng: np.random.Generator) -> Element:
        if element.canvas is None:
            return element
        boxes = geometry.to_fractions(element.boxes, element.canvas)
        return element._replace(
            patch=geometry.batch_sampler(rng, boxes, self.crop_scale),
            least_share=self.crop_share,
            least_side=self.crop_side,
        )

    def _interpolation(self, element: Element, rng: np.random.Generator) -> Element:
        kinds = tuple(INTERPOLATIONS)
        kind = self.interpolation
        kind = kinds[int(rng.random() * len(kinds))] if kind == "random" else kind
        return element._replace(interpolation=INTERPOLATIONS[kind])

    def _flip(self, element: Element, rng: np.random.Generator) -> Element:
        return _turn(element, flip=rng.random() < self.flip)

    def _flip_vertical(self, element: Element, rng: np.random.Generator) -> Element:
        return _turn(element, flip_vertical=rng.random() < self.flip_vertical)

    def _rotate(self, element: Element, rng: np.random.Generator) -> Element:
        return _turn(element, quarter=rng.random() < self.rotate)


def _turn(element: Element, **changes: bool) -> Element:
    return element._replace(orientation=element.orientation._replace(**changes))
