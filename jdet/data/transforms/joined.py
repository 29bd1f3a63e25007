"""Several images in one: an element laid onto a frame with its objects, and what frames are joined to.

A frame has the size of the first image, so that what training draws later (crops, flips, the resize) does
with it what it does with any image. Images keep their proportions on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from jdet.data.segmentation import decode, encode, polygons
from jdet.data.transforms import resample
from jdet.data.transforms.element import Element
from jdet.data.transforms.geometry import Rect
from jdet.data.transforms.resample import Size


class Place(NamedTuple):
    """Where an image lies on a frame; it may reach beyond it.

    Attributes:
        size: height and width of the resized image.
        y: row of the frame at which its first row lies.
        x: likewise of its first column.
        flip: left and right change places.
    """

    size: Size
    y: int
    x: int
    flip: bool = False

    def seen(self, frame: Size) -> Rect:
        """The part of a frame that the image covers."""
        (height, width), (rows, columns) = self.size, frame
        x0, x1 = (min(max(v, 0), columns) for v in (self.x, self.x + width))
        y0, y1 = (min(max(v, 0), rows) for v in (self.y, self.y + height))
        return Rect(x0, y0, x1, y1)


class Left(NamedTuple):
    """What an object needs to stay where a frame or another object cuts it.

    Regions with ``ignore`` stay wherever anything of them is seen: what lies in them is no background.

    Attributes:
        share: of its area that is left; YOLOX's ``area_thr``.
        side: shortest width and height, pixels of the frame; YOLOX's ``wh_thr``.
    """

    share: float = 0.2
    side: float = 2.0


def fitted(image: np.ndarray, frame: Size, factor: float = 1.0) -> Size:
    """The size at which an image [H, W, C] fits into a frame, times a factor; a pixel a side at least."""
    height, width = image.shape[:2]
    ratio = factor * min(frame[0] / height, frame[1] / width)
    return max(int(height * ratio + 0.5), 1), max(int(width * ratio + 0.5), 1)


def laid(element: Element, place: Place, frame: Size, left: Left) -> Element:
    """An element's image at its place and its objects on the frame.

    Args:
        element: with an image.
        place: where it lies.
        frame: height and width.
        left: which objects stay; their boxes are cut at the frame.

    Returns:
        The element with ``image`` cut to what the frame shows of it (``place.seen``; without pixels where
        that is nothing) and objects in pixels of the frame.
    """
    assert element.image is not None
    image = element.image
    height, width = place.size
    seen = place.seen(frame)
    pixels = np.zeros((0, 0, image.shape[2]), image.dtype)
    if seen.pixels:
        pixels = image
        if image.shape[:2] != place.size:
            kind = resample.plain_interpolation(image, width, height)
            pixels = resample.resize(image, width, height, kind)
        pixels = pixels[:, ::-1] if place.flip else pixels
        pixels = pixels[
            seen.y0 - place.y : seen.y1 - place.y, seen.x0 - place.x : seen.x1 - place.x
        ]
    scale = np.array([width / image.shape[1], height / image.shape[0]] * 2)
    whole = element.boxes * scale
    if place.flip:
        whole[:, [0, 2]] = width - whole[:, [2, 0]]
    whole += np.array([place.x, place.y] * 2)
    boxes = np.clip(whole, 0, np.array([frame[1], frame[0]] * 2))
    sides = boxes[:, 2:] - boxes[:, :2]
    there, before = (sides > 0).all(axis=1), np.prod(whole[:, 2:] - whole[:, :2], axis=1)
    stays = (sides >= left.side).all(axis=1) & (sides.prod(axis=1) >= left.share * before)
    keep = np.flatnonzero(there & (stays | element.ignore))
    masks = element.masks
    if masks is not None:
        masks = tuple(_moved(masks[i], element, place, frame) for i in keep)
    return element._replace(
        image=pixels,
        boxes=boxes[keep].astype(np.float32),
        labels=element.labels[keep],
        ignore=element.ignore[keep],
        masks=masks,
        cut_from=None,
    )


def _moved(segmentation: Any, element: Element, place: Place, frame: Size) -> Any:
    """A segmentation on a frame; of a tile, one that was in the whole image's pixels."""
    assert element.image is not None
    if segmentation is None:
        return None
    height, width = element.image.shape[:2]
    if isinstance(segmentation, (list, tuple)) and element.cut_from is None:
        found = []
        scale = np.array([place.size[1] / width, place.size[0] / height])
        for polygon in polygons(segmentation):
            points = np.reshape(polygon, (-1, 2)) * scale
            if place.flip:
                points[:, 0] = place.size[1] - points[:, 0]
            found.append((points + np.array([place.x, place.y])).ravel().tolist())
        return found
    y, x, *full = element.cut_from or (0, 0, height, width)
    bitmap = decode(segmentation, *full)[y : y + height, x : x + width]
    bitmap = cv2.resize(
        np.ascontiguousarray(bitmap), place.size[::-1], interpolation=cv2.INTER_NEAREST
    )
    bitmap = bitmap[:, ::-1] if place.flip else bitmap
    seen, whole = place.seen(frame), np.zeros(frame, np.uint8)
    whole[seen.y0 : seen.y1, seen.x0 : seen.x1] = bitmap[
        seen.y0 - place.y : seen.y1 - place.y, seen.x0 - place.x : seen.x1 - place.x
    ]
    return encode(whole)


def with_objects(first: Element, image: np.ndarray, parts: Sequence[Element]) -> Element:
    """The first element with another image and the objects of all parts."""
    masks: tuple[Any, ...] | None = None
    if any(part.masks is not None for part in parts):
        masks = tuple(mask for part in parts for mask in (part.masks or (None,) * len(part.boxes)))
    return first._replace(
        image=image,
        boxes=np.concatenate([part.boxes for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        ignore=np.concatenate([part.ignore for part in parts]),
        masks=masks,
        cut_from=None,
    )


def mosaic(
    elements: Sequence[Element],
    *,
    centre: tuple[float, float],
    window: tuple[float, float],
    zoom: float,
    fill: resample.Fill,
    left: Left,
) -> Element:
    """Four images around a point, as in YOLOv4 (Bochkovskiy et al. 2020, sec. 3.3) and YOLOX.

    The canvas has twice the sides of the first image. Every image is resized to fit into the size of the
    first and lies with a corner at the point: upper left, upper right, lower left, lower right, cut at the
    edges of the canvas. A window of it becomes the frame: the whole canvas at a zoom of 0.5, a quarter of
    its area, in which objects are as large as they were, at 1.

    Args:
        elements: four; one without an image leaves its place empty, the first has one.
        centre: y and x of the point, shares of the canvas; YOLOX draws them from 0.25 … 0.75.
        window: y and x of the window, 0 … 1: from the upper left of the canvas to the lower right.
        zoom: 0.5 at least.
        fill: C values where no image is.
        left: which objects stay.

    Returns:
        The first element with an image of its size and the objects of all.
    """
    first = elements[0]
    assert first.image is not None
    frame = first.image.shape[:2]
    point = [
        round((2 * side * at - u * (2 * side - side / zoom)) * zoom)
        for side, at, u in zip(frame, centre, window, strict=True)
    ]
    canvas = resample.blank(frame, fill, first.image.dtype)
    parts = []
    for number, element in enumerate(elements):
        if element.image is None:
            continue
        size = fitted(element.image, frame, zoom)
        lower, right = divmod(number, 2)
        place = Place(
            size, point[0] - (0 if lower else size[0]), point[1] - (0 if right else size[1])
        )
        part, seen = laid(element, place, frame, left), place.seen(frame)
        if seen.pixels:
            canvas[seen.y0 : seen.y1, seen.x0 : seen.x1] = part.image
        parts.append(part)
    return with_objects(first, canvas, parts)


def mixed(first: Element, other: Element, place: Place, fill: resample.Fill, left: Left) -> Element:
    """Two images in equal shares with the objects of both, as in YOLOX (Ge et al. 2021, sec. 2.1).

    (Zhang et al. 2018 draw the shares, and weigh labels by them; YOLOX does neither.)

    Args:
        first: with an image, which is the frame; its objects all stay.
        other: with an image.
        place: of the other.
        fill: C values with which the first is mixed where the other is not.
        left: which objects of the other stay.
    """
    assert first.image is not None
    frame = first.image.shape[:2]
    part, seen = laid(other, place, frame, left), place.seen(frame)
    second = resample.blank(frame, fill, first.image.dtype)
    if seen.pixels:
        second[seen.y0 : seen.y1, seen.x0 : seen.x1] = part.image
    image = (first.image.astype(np.float32) + second) / 2
    if first.image.dtype.kind in "iu":
        image = np.rint(image)
    own = laid(first, Place(frame, 0, 0), frame, Left(0.0, 0.0))
    return with_objects(first, image.astype(first.image.dtype), [own, part])
