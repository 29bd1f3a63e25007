"""The end of an element's way: its pixels are rendered once, its objects moved along and padded."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from jdet.data.transforms import geometry, instance_masks, perspective, resample
from jdet.data.transforms.element import Element
from jdet.data.transforms.geometry import WHOLE, Canvas, Placement
from jdet.data.transforms.intensity import USUAL_VALUES, ImageValues
from jdet.data.transforms.resample import Size
from jdet.data.transforms.resize import Resize
from jdet.types import Batch, DataError

OPTIONAL_FIELDS = ("masks",)
"""Optional fields of ``Batch`` that rows carry, for detectors that need them; all others stay None."""


class Row(NamedTuple):
    """One image of a batch, and what is to be told about it.

    Attributes:
        fields: ``Batch`` without its leading axis.
        id: name of the image.
        problem: why it could not be read; empty if it could.
        dropped: objects left out because there were more than ``max_boxes``.
    """

    fields: Batch
    id: str
    problem: str
    dropped: int


class Location(NamedTuple):
    """Where an element lies in its network input.

    Attributes:
        shape: height and width of the network input.
        content: height and width of the part of it that is not padding.
        canvas: the zoomed-out canvas, or one of the size of the image.
        placement: which pixels of the image fill which pixels of the content.
    """

    shape: Size
    content: Size
    canvas: Canvas
    placement: Placement


def locate(element: Element, resize: Resize) -> Location:
    """Works out where an element lies; of its image only the size is used."""
    assert element.image is not None
    height, width = element.image.shape[:2]
    canvas = element.canvas or Canvas(width, height)
    shape = element.shape or resize.shapes[0]
    if (window := element.window) is not None:
        content = window.part
        placement = geometry.place(canvas, width, height, window.size, element.patch)
        return Location(shape, content, canvas, geometry.shifted(placement, window))
    content = resize.content(*geometry.patch_size(canvas, element.patch), shape, element.scale)
    placement = geometry.place(canvas, width, height, content, element.patch)
    return Location(shape, content, canvas, placement)


def moved_objects(element: Element, location: Location) -> tuple[np.ndarray, np.ndarray]:
    """Takes the objects of an element along to its network input.

    Args:
        element: with its objects and its orientation.
        location: from ``locate``.

    Returns:
        All boxes, float32 [n, 4] in pixels of the network input and clipped to its content, and the
        indices of those that are still objects there.
    """
    boxes, patch, placement = element.boxes, element.patch, location.placement
    if not len(boxes) or not placement.source.pixels:
        return boxes, np.zeros(0, np.intp)
    moved = geometry.move_boxes(boxes, placement, location.content, orientation=element.orientation)
    keep = (moved[:, :2] < moved[:, 2:]).all(axis=1)
    if patch != WHOLE:
        within = geometry.to_fractions(boxes, location.canvas)
        if element.least_share:
            keep &= geometry.share_inside(within, patch) >= element.least_share
        else:
            keep &= geometry.centres_inside(within, patch)
        if element.least_side:
            keep &= (moved[:, 2:] - moved[:, :2] >= element.least_side).all(axis=1)
    return moved, np.flatnonzero(keep)


@dataclasses.dataclass(frozen=True)
class Finish:
    """Renders an element and pads its objects.

    Attributes:
        resize: what the network sees of images.
        max_boxes: rows for objects; of more than that those that are not ignored (difficult or crowd)
            come first, and of them the largest. 0 leaves objects out.
        fill: C values beside the image, and of an image that could not be read.
        dtype: of the images.
        mask_size: side of the objects' masks, M; 0 leaves masks out.
        values: what the values of images mean.
    """

    resize: Resize
    max_boxes: int
    fill: geometry.Fill
    dtype: str = "uint8"
    mask_size: int = 0
    values: ImageValues = USUAL_VALUES

    def __call__(self, element: Element) -> Row:
        """Returns the finished row."""
        rows = self.max_boxes
        location = None
        if element.image is None:
            content = original_size = element.shape or self.resize.shapes[0]
            image = resample.blank(content, self.fill, self.dtype)
            boxes, keep = element.boxes, np.zeros(0, np.intp)
        else:
            location = locate(element, self.resize)
            content, original_size = location.content, element.image.shape[:2]
            image = self._render(element, element.image, location)
            boxes, keep = moved_objects(element, location)
        dropped = max(len(keep) - rows, 0) if rows else 0
        if len(keep) > rows:
            sides = boxes[keep, 2:] - boxes[keep, :2]
            first = np.lexsort((-sides.prod(axis=1), element.ignore[keep]))[:rows]
            keep = keep[np.sort(first)]
        fields = Batch(
            images=image,
            boxes=_pad(boxes, keep, (rows, 4), np.float32),
            labels=_pad(element.labels, keep, (rows,), np.int32),
            valid=np.arange(rows) < len(keep),
            ignore=_pad(element.ignore, keep, (rows,), np.bool_),
            image_sizes=np.array(content, np.int32),
            original_sizes=np.array(original_size, np.int32),
            index=np.int32(element.index),
            real=np.bool_(element.image is not None),
            masks=self._masks(element, location, keep) if self.mask_size else None,
        )
        return Row(fields=fields, id=element.id, problem=element.problem, dropped=dropped)

    def _masks(self, element: Element, location: Location | None, keep: np.ndarray) -> np.ndarray:
        """Masks of the objects ``keep``, uint8 [N, M, M]."""
        side = self.mask_size
        masks = np.zeros((self.max_boxes, side, side), np.uint8)
        if location is not None and element.masks is not None and element.image is not None:
            parts = instance_masks.visible_parts(
                element.boxes[keep], location.placement, location.content
            )
            size = element.image.shape[:2]
            if element.cut_from is not None:
                y, x, *size = element.cut_from
                parts += np.array([x, y, x, y])
            masks_of = [element.masks[i] for i in keep]
            try:
                found = instance_masks.box_bitmaps(masks_of, parts, (size[0], size[1]), side)
            except ValueError as error:
                raise DataError(f"image {element.id}: {error}") from error
            masks[: len(keep)] = instance_masks.turned(found, element.orientation)
        return masks

    def _render(self, element: Element, image: np.ndarray, location: Location) -> np.ndarray:
        content = location.content
        kind = element.interpolation
        if kind is None:
            whole = element.window.size if element.window else content
            kind = resample.plain_interpolation(image, whole[1], whole[0])
        distort = functools.partial(element.distortion.apply, values=self.values)
        if element.warp is not None or element.holes:
            # Distorted first: the fill stays as it is.
            image = perspective.painted(distort(image), element.warp, element.holes, self.fill)
            distort = np.asarray
        output = geometry.render(
            image,
            location.placement,
            content,
            interpolation=kind,
            fill=self.fill,
            orientation=element.orientation,
            distort=distort,
        )
        return resample.pad(output, location.shape, self.fill)


def _pad(rows: np.ndarray, keep: np.ndarray, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    padded = np.zeros(shape, dtype)
    padded[: len(keep)] = rows[keep]
    return padded
