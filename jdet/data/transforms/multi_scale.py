"""One image at several input sizes, for multi-scale testing.

A view is one network input: one of the shapes of a resize at one scale, which shows the images to which
that resize gives this shape. Where images are warped, a view may also have a long and a short side. One
that is wider than high shows only images that are at least as wide as high, and a higher one only the
others, so that long and short keep their meaning.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jdet.data.transforms.element import Element
from jdet.data.transforms.finish import Row
from jdet.data.transforms.resample import Size
from jdet.data.transforms.resize import Resize, fit
from jdet.types import EIGHT_BIT_RGB, Batch, ImageKind


@dataclasses.dataclass(frozen=True)
class View:
    """One network input.

    Attributes:
        shape: its height and width, pixels.
        resize: of its scale, of which ``shape`` is one; None: images are warped to ``shape``.
    """

    shape: Size
    resize: Resize | None = None

    def shows(self, height: int, width: int) -> bool:
        """Whether it shows images of a size (pixels)."""
        if self.resize:
            return self.resize.shapes[self.resize.shape_of(height, width)] == self.shape
        high, wide = self.shape
        return high == wide or (wide > high) == (width >= height)

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """An image [H, W, C] that it shows as [*shape, C] of its type, with its size int32 [2]."""
        return self.resize.prepare(image) if self.resize else fit(image, self.shape, self.shape)


def prepare_views(
    image: np.ndarray | None, views: tuple[View, ...], kind: ImageKind = EIGHT_BIT_RGB
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """An image in all views.

    Args:
        image: [H, W, C]; None where it could not be read: no view shows it.
        views: the network inputs.
        kind: of all images.

    Returns:
        One [height, width, C] of the image's type per view, zeros where the view does not show the image,
        and the size of what it shows, int32 [2]: the image's content, or zeros.
    """
    images, sizes = [], []
    for view in views:
        if image is not None and view.shows(*image.shape[:2]):
            pixels, size = view.prepare(image)
        else:
            pixels, size = np.zeros((*view.shape, kind.channels), kind.dtype), np.zeros(2, np.int32)
        images.append(pixels)
        sizes.append(size)
    return tuple(images), tuple(sizes)


@dataclasses.dataclass(frozen=True)
class FinishViews:
    """Renders an element in all views, without its objects.

    Attributes:
        views: the network inputs.
        kind: of the images.
    """

    views: tuple[View, ...]
    kind: ImageKind = ImageKind()

    def __call__(self, element: Element) -> Row:
        """Returns a row whose ``images`` and ``image_sizes`` are tuples with an entry per view."""
        image = element.image
        images, sizes = prepare_views(image, self.views, self.kind)
        fields = Batch(
            images=images,
            boxes=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int32),
            valid=np.zeros(0, np.bool_),
            ignore=np.zeros(0, np.bool_),
            image_sizes=sizes,
            original_sizes=np.array((1, 1) if image is None else image.shape[:2], np.int32),
            index=np.int32(element.index),
            real=np.bool_(image is not None),
        )
        return Row(fields=fields, id=element.id, problem=element.problem, dropped=0)
