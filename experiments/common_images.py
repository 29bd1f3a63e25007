"""What the experiments with images of other kinds share: their sets, and boards with other values."""

from typing import NamedTuple

import numpy as np

from jdet.data.readers.decoder import Decoder
from jdet.data.readers.settings import USUAL
from jdet.data.sources.voc import VocSource
from jdet.types import ImageKind


class Set(NamedTuple):
    """A set.

    Attributes:
        short: short side of the network's input in the ``cpu`` arm, pixels; twice that otherwise.
        long: the same of the long side.
        channels: of its images.
        views: the channels to take, of each view; all where there are none.
        batch: images of a step.
        max_boxes: rows for objects.
        detections: of an image, at which AP is taken.
        tile: side of the tiles in which images are shown in the ``cpu`` arm, pixels of the image; twice
            that otherwise; 0: whole.
        overlap: of tiles, pixels of the image: that of the largest objects.
        around: probability that training lays a tile around an object.
        clip: limit of the gradient's norm: batches with few objects have steep ones; 0: none.
        steps: of the ``cpu`` arm.
        sixteen: its files have 16 bits.
        anchor: side of the anchors, strides, of which the finest is 4 pixels.
    """

    short: int
    long: int
    channels: int
    views: dict[str, tuple[int, ...]]
    batch: int = 4
    max_boxes: int = 64
    detections: int = 100
    tile: int = 0
    overlap: int = 0
    around: float = 0.5
    clip: float = 0.0
    steps: int = 400
    sixteen: bool = True
    anchor: float = 8.0


SETS = {
    "worms": Set(196, 262, 2, {"both": (), "w1": (0,), "w2": (1,)}),
    "cells": Set(256, 256, 1, {"all": ()}),
    "ships": Set(
        256,
        256,
        5,
        {"all": (), "visible": (2, 1, 0)},
        tile=128,
        overlap=48,
        around=0.8,
        clip=1.0,
        steps=600,
        anchor=4.0,
    ),
    "axons": Set(
        256,
        256,
        1,
        {"all": ()},
        max_boxes=256,
        detections=3000,
        tile=256,
        overlap=80,
        sixteen=False,
        anchor=4.0,
    ),
    "embryos": Set(256, 336, 3, {"all": ()}, sixteen=False),
}
AS_8 = "_as_8"
"""What a view by the high byte is called after."""

WRITTEN = {
    "uint8": lambda g: g,
    "uint16": lambda g: (30000 + np.round(g * (200 / 255))).astype(np.uint16),
    "float32": lambda g: (0.25 + g * (1e-3 / 255)).astype(np.float32),
}
"""Grey values 0 … 255 as each type of file would hold them."""

REDUCED = {
    "uint16": lambda v: (v >> 8).astype(np.uint8),
    "float32": lambda v: np.minimum(v * 256, 255).astype(np.uint8),
}
"""Values as programs for 8-bit images take them."""

KINDS = {
    "uint8": ImageKind(channels=1, colour="gray"),
    "uint16": ImageKind(channels=1, colour="gray", dtype="uint16", value_range=(0.0, 32767.0)),
    "float32": ImageKind(channels=1, colour="gray", dtype="float32", value_range=(0.25, 0.251)),
}
DTYPES = (*WRITTEN, *(f"{name}_as_8" for name in REDUCED))


class Rewritten(VocSource):
    """A VOC folder of 8-bit images as if its files held other values.

    Args:
        root: as in ``VocSource``.
        splits: as in ``VocSource``.
        written: one of ``DTYPES``.
        on_error: as in ``VocSource``.
        image_settings: as in ``VocSource``.
    """

    image_kind = KINDS["uint8"]
    image_survey = None

    def __init__(self, root, splits, written="uint16", *, on_error="raise", image_settings=USUAL):
        super().__init__(root, splits, on_error=on_error, image_settings=image_settings)
        self._type, _, self._reduced = written.partition("_as_")
        if not self._reduced:
            self.image_kind = KINDS[self._type]

    def __getitem__(self, index):
        example = super().__getitem__(index)
        grey = Decoder()(example.image, example.id)[..., :1]
        image = WRITTEN[self._type](grey)
        return example._replace(image=REDUCED[self._type](image) if self._reduced else image)
