"""Random affine maps and perspectives of whole images, and cut-out: what is drawn, and what it does.

A map leaves the size of the image as it is. Boxes become those around their mapped corners, polygons are
mapped point by point, bitmaps (and polygons in tiles) pixel by pixel; the image is sampled in ``painted``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from jdet.data.segmentation import decode, encode, polygons
from jdet.data.transforms.element import Element
from jdet.data.transforms.geometry import Rect
from jdet.data.transforms.resample import Fill, Size, blank


def draw_map(
    rng: np.random.Generator,
    size: Size,
    *,
    rotate: float,
    scale: float,
    shear: float,
    translate: float,
    perspective: float,
) -> np.ndarray:
    """Draws a map of an image onto itself, about its middle.

    Args:
        rng: eight numbers are taken from it.
        size: height and width, pixels.
        rotate: largest angle either way, degrees.
        scale: factors are drawn from 1 - scale … 1 + scale, one for both axes.
        shear: largest angle of each axis, degrees.
        translate: largest shift along each axis, share of the side.
        perspective: largest change of the scale from the middle to an edge, along each axis.

    Returns:
        float64 [3, 3], which takes (x, y, 1) in continuous pixels to a multiple of the new (x, y, 1).
    """
    u = 2 * rng.random(8) - 1
    height, width = size
    middle = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1.0]])
    tilt = np.eye(3)
    tilt[2, :2] = perspective * u[:2] / (width / 2, height / 2)
    angle, factor = math.radians(rotate * u[2]), 1 + scale * u[3]
    cos, sin = factor * math.cos(angle), factor * math.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    lean = np.eye(3)
    lean[0, 1], lean[1, 0] = np.tan(np.radians(shear * u[4:6]))
    back = np.eye(3)
    back[:2, 2] = np.array([0.5, 0.5]) * (width, height) + translate * u[6:] * (width, height)
    return back @ lean @ turn @ tilt @ middle


def moved_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points float [..., 2], x y, under a map; float64."""
    points = np.asarray(points, np.float64)
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped[..., :2] / mapped[..., 2:]


def mapped(element: Element, matrix: np.ndarray, *, share: float, side: float) -> Element:
    """An element under a map; its pixels follow at the end (``painted``).

    Args:
        element: with an image.
        matrix: float64 [3, 3], of ``draw_map``.
        share: of its area that an object's box must have inside the image to stay.
        side: shortest width and height of a box that stays, pixels of the image.
    """
    assert element.image is not None
    height, width = element.image.shape[:2]
    corners = element.boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]  # [n, 4, xy]
    moved = moved_points(corners, matrix)
    whole = np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1)
    boxes = np.clip(whole, 0, np.array([width, height] * 2))
    sides = boxes[:, 2:] - boxes[:, :2]
    before = np.prod(whole[:, 2:] - whole[:, :2], axis=1)
    keep = (sides > 0).all(axis=1) & (sides >= side).all(axis=1)
    keep = np.flatnonzero(keep & (sides.prod(axis=1) >= share * before))
    masks = element.masks
    if masks is not None:
        masks = tuple(_moved_mask(masks[i], element, matrix) for i in keep)
    return element._replace(
        boxes=boxes[keep].astype(np.float32),
        labels=element.labels[keep],
        ignore=element.ignore[keep],
        masks=masks,
        cut_from=None,
        warp=matrix,
    )


def _moved_mask(segmentation: Any, element: Element, matrix: np.ndarray) -> Any:
    """A segmentation in the image under the map; of a tile, one that was in the whole image's pixels."""
    assert element.image is not None
    height, width = element.image.shape[:2]
    if segmentation is None:
        return None
    # Of a tile, points can lie so far outside that a perspective has no place for them.
    if isinstance(segmentation, (list, tuple)) and element.cut_from is None:
        shapes = [np.reshape(polygon, (-1, 2)) for polygon in polygons(segmentation)]
        return [moved_points(shape, matrix).ravel().tolist() for shape in shapes]
    y, x, *full = element.cut_from or (0, 0, height, width)
    bitmap = decode(segmentation, *full)[y : y + height, x : x + width]
    mapped_bitmap = cv2.warpPerspective(
        np.ascontiguousarray(bitmap), _of_pixels(matrix), (width, height), flags=cv2.INTER_NEAREST
    )
    return encode(mapped_bitmap)


def draw_holes(
    rng: np.random.Generator, size: Size, *, count: int, side: float
) -> tuple[Rect, ...]:
    """Draws squares that hide parts of an image (DeVries & Taylor 2017): 1 to ``count`` of them.

    Their middles lie anywhere, so that they may reach beyond the image.

    Args:
        rng: ``1 + 3 * count`` numbers are taken from it.
        size: height and width, pixels.
        count: most squares.
        side: longest side, share of the image's shorter one; sides are drawn from half of it on.
    """
    number = 1 + int(rng.random() * count)
    height, width = size
    holes = []
    for extent, u, v in rng.random((count, 3)).tolist()[:number]:
        half = side * min(size) * (0.5 + 0.5 * extent) / 2
        x, y = u * width, v * height
        ends = (x - half, y - half, x + half, y + half)
        x0, y0, x1, y1 = (
            round(min(max(v, 0), limit)) for v, limit in zip(ends, (width, height) * 2, strict=True)
        )
        holes.append(Rect(x0, y0, x1, y1))
    return tuple(holes)


def painted(
    image: np.ndarray, matrix: np.ndarray | None, holes: Sequence[Rect], fill: Fill
) -> np.ndarray:
    """An image under a map and with holes, with the fill where nothing of it is.

    Args:
        image: [H, W, C], uint8, uint16 or float32.
        matrix: float64 [3, 3], or None.
        holes: in pixels of the mapped image.
        fill: C values; of whole numbers they are rounded.

    Returns:
        A new image of the same shape and type, by linear interpolation.
    """
    height, width, channels = image.shape
    if matrix is None:
        output = image.copy()
    else:
        parts = []
        for first in range(0, channels, 4):  # as many as OpenCV takes
            part = np.ascontiguousarray(image[..., first : first + 4])
            warped = cv2.warpPerspective(
                part,
                _of_pixels(matrix),
                (width, height),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=blank((1, 1), tuple(fill[first : first + 4]), image.dtype)[
                    0, 0
                ].tolist(),
            )
            parts.append(warped.reshape(part.shape))
        output = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
    for x0, y0, x1, y1 in holes:
        output[y0:y1, x0:x1] = blank((1, 1), tuple(fill), image.dtype)
    return output


def _of_pixels(matrix: np.ndarray) -> np.ndarray:
    """The map between indices of pixels, whose middles lie half a pixel further."""
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    return np.linalg.inv(shift) @ matrix @ shift
