"""An image on its way through the input pipeline, with what was decided about it so far.

A random operation draws numbers and notes its decision in the ``Element``; the pixels are touched once, at
the end (``jdet.data.transforms.finish``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jdet.data.transforms.geometry import (
    UPRIGHT,
    WHOLE,
    Canvas,
    Orientation,
    Patch,
    Rect,
    Window,
)
from jdet.data.transforms.intensity import Intensity
from jdet.data.transforms.photometric import NO_DISTORTION, Distortion
from jdet.data.transforms.resample import Size


class Element(NamedTuple):
    """What was read of one image, and what the random operations decided.

    Attributes:
        index: position in the source.
        id: name of the image.
        image: [H, W, C] as ``ImageKind`` says; None for padding and for images that cannot be read.
        boxes: float32 [n, 4] in pixels of ``image``.
        labels: int32 [n].
        ignore: bool [n].
        masks: one COCO segmentation per object in pixels of ``image``, as in ``Example``; or None.
        problem: why the image cannot be read.
        distortion: photometric changes.
        canvas: zoom-out canvas; None stands for the image itself.
        patch: crop, in fractions of the canvas.
        least_share: share of its area that an object must have in a crop to stay; 0: its
            centre must lie in it.
        least_side: shortest side of an object after a crop, pixels of the network input.
        interpolation: one of the values of ``resample.INTERPOLATIONS``; None for that of evaluation.
        orientation: mirrors and quarter turn of the output.
        shape: height and width of the network input; None for the first of the resize.
        scale: what the resize drew for training, in its own unit; 0 for the size of testing.
        window: part of the resized image or crop that the network sees; None: as ``Resize.content`` says.
        cut_from: first row and column of ``image`` in a larger one, and the height and width of that, in
            whose pixels ``masks`` then are; None: it is whole.
        warp: float64 [3, 3], a map of the image (``jdet.data.transforms.perspective``) under which objects
            are already and pixels are not; None: there is none.
        holes: rectangles of the mapped image that become the fill.
        alone: no other image is mixed into it (``jdet.data.mix``).
    """

    index: int = 0
    id: str = ""
    image: np.ndarray | None = None
    boxes: np.ndarray = np.zeros((0, 4), np.float32)
    labels: np.ndarray = np.zeros(0, np.int32)
    ignore: np.ndarray = np.zeros(0, np.bool_)
    masks: tuple[Any, ...] | None = None
    problem: str = ""
    distortion: Distortion | Intensity = NO_DISTORTION
    canvas: Canvas | None = None
    patch: Patch = WHOLE
    least_share: float = 0.0
    least_side: float = 0.0
    interpolation: int | None = None
    orientation: Orientation = UPRIGHT
    shape: Size | None = None
    scale: float = 0
    window: Window | None = None
    cut_from: tuple[int, int, int, int] | None = None
    warp: np.ndarray | None = None
    holes: tuple[Rect, ...] = ()
    alone: bool = False


Operation = Callable[[Element, np.random.Generator], Element]
"""A random operation; the input pipeline seeds its generator from the config's seed, the operation's name
and the position in the stream."""
