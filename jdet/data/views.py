"""One picture at several input sizes, for multi-scale testing.

A view is ``(height, width)`` of a network input in pixels. Every picture is warped to every square
view; a view that is wider than high shows pictures that are at least as wide as high, and the other
way round, so that a long and a short side keep their meaning.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jdet.data.augmentation import Element, Row
from jdet.data.framing import Framing
from jdet.types import Batch

View = tuple[int, int]


def shows(view: View, height: int, width: int) -> bool:
    """Whether a view shows pictures of a size (pixels)."""
    return view[0] == view[1] or (view[1] > view[0]) == (width >= height)


def prepare_view(image: np.ndarray, view: View) -> np.ndarray:
    """A picture uint8 [H, W, 3] warped to a view, uint8 [*view, 3], as ``Framing.prepare`` resizes."""
    return Framing((view,)).prepare(image)[0]


def prepare_views(
    image: np.ndarray | None, views: tuple[View, ...]
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """A picture in all views.

    Args:
        image: uint8 [H, W, 3], RGB; None is in no view.
        views: the sizes.

    Returns:
        One uint8 [height, width, 3] a view, black where the view does not show the picture, and the
        size of what it shows, int32 [2]: the view's own, or zeros.
    """
    images, sizes = [], []
    for view in views:
        if image is not None and shows(view, *image.shape[:2]):
            images.append(prepare_view(image, view))
            sizes.append(np.array(view, np.int32))
        else:
            images.append(np.zeros((*view, 3), np.uint8))
            sizes.append(np.zeros(2, np.int32))
    return tuple(images), tuple(sizes)


@dataclasses.dataclass(frozen=True)
class FinishViews:
    """Renders an element in all views, without its objects.

    Attributes:
        views: the sizes.
    """

    views: tuple[View, ...]

    def __call__(self, element: Element) -> Row:
        """Returns a row whose ``images`` and ``image_sizes`` are tuples with an entry a view."""
        image = element.image
        images, sizes = prepare_views(image, self.views)
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
        return Row(fields, element.id, element.problem, 0)
