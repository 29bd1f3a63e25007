"""Zoom-out, the seven-sampler batch crop, resize and flip of SSD, in one sampling of the image.

The transforms follow the Caffe SSD data transformer and batch sampler (SSD, sec. 2.2 and its "new"
augmentation). Caffe paints the zoomed-out canvas (up to four times the image's sides), crops it
and resizes the crop. Here the canvas only exists as numbers: `place` works out which pixels of the
image end up where in the output, and `render` resizes those pixels into their place in an output
already filled with the mean colour.

Where the crop shows no canvas, the result equals Caffe's bit for bit. Where it does, the edges of the
image are rounded to whole output pixels (Caffe's resize would blend the seam), so the image is shifted or
stretched by at most half an output pixel at its edges; boxes follow exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from jdet.data.transforms.resample import Fill, Size, blank, by_four, resize

MIN_IOUS = (0.1, 0.3, 0.5, 0.7, 0.9)  # samplers 2 to 6
TRIALS = 50  # of samplers 2 to 7
ASPECTS = (0.5, 2.0)  # of a patch, relative to the aspect of the image

# Samplers 2 to 7; the last one asks for an IoU of at most 1, which every object satisfies.
_THRESHOLDS = np.array([*MIN_IOUS, 0.0], np.float32)[:, None]
_SAMPLER = np.arange(len(_THRESHOLDS))


class Canvas(NamedTuple):
    """A canvas of ``width`` x ``height`` pixels with the image's corner at ``x``, ``y``."""

    width: int
    height: int
    x: int = 0
    y: int = 0


class Rect(NamedTuple):
    """Whole pixels x0 … x1-1, y0 … y1-1."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def pixels(self) -> int:
        """How many pixels it covers."""
        return max(self.x1 - self.x0, 0) * max(self.y1 - self.y0, 0)


class Placement(NamedTuple):
    """The pixels ``source`` of the image fill the pixels ``target`` of the output.

    ``source`` has no pixels where the crop shows nothing but canvas. ``target`` may reach beyond the
    output, which then shows a part of the resized pixels.
    """

    source: Rect
    target: Rect


class Orientation(NamedTuple):
    """Which way the output is turned: first mirrored, then, a square one, by a quarter.

    Attributes:
        flip: left and right change places.
        flip_vertical: top and bottom change places.
        quarter: a quarter turn clockwise.
    """

    flip: bool = False
    flip_vertical: bool = False
    quarter: bool = False


UPRIGHT = Orientation()


class Window(NamedTuple):
    """A part of a resized image.

    Attributes:
        size: height and width of the whole resized image.
        y: its first row that belongs to the part.
        x: likewise its first column.
        part: height and width of the part.
    """

    size: Size
    y: int
    x: int
    part: Size


Patch = tuple[float, float, float, float]  # x1 y1 x2 y2 in fractions of the canvas
WHOLE: Patch = (0.0, 0.0, 1.0, 1.0)


def expand(
    rng: np.random.Generator, width: int, height: int, *, probability: float, max_ratio: float
) -> Canvas:
    """Draws the zoom-out canvas: sides multiplied by a factor from U(1, max_ratio).

    Args:
        rng: four numbers are taken from it, whether it fires or not.
        width: of the image, in pixels.
        height: of the image, in pixels.
        probability: of zooming out.
        max_ratio: largest factor.

    Returns:
        The canvas; sides and offsets are whole pixels, rounded down as in Caffe.
    """
    fires, ratio, x, y = rng.random(4).tolist()
    if fires >= probability:
        return Canvas(width, height)
    ratio = 1.0 + (max_ratio - 1.0) * ratio
    canvas_width, canvas_height = int(width * ratio), int(height * ratio)
    x, y = int(x * (canvas_width - width)), int(y * (canvas_height - height))
    return Canvas(canvas_width, canvas_height, x, y)


def sample_patches(rng: np.random.Generator, count: int, min_scale: float) -> np.ndarray:
    """Draws random patches of the unit square.

    Args:
        rng: ``4 * count`` numbers are taken from it.
        count: of patches.
        min_scale: scale is U(min_scale, 1); aspect is U(0.5, 2) clamped to scale², 1 / scale².

    Returns:
        float32 [4, count], rows x1 y1 x2 y2 in 0 … 1.
    """
    u = rng.random((4, count), np.float32)
    scale = np.float32(min_scale) + np.float32(1.0 - min_scale) * u[0]
    aspect = np.float32(ASPECTS[0]) + np.float32(ASPECTS[1] - ASPECTS[0]) * u[1]
    square = scale * scale
    root = np.sqrt(np.minimum(np.maximum(aspect, square), 1 / square))
    patches = np.empty((4, count), np.float32)
    np.minimum(scale * root, 1, out=patches[2])
    np.minimum(scale / root, 1, out=patches[3])
    patches[:2] = u[2:] * (1 - patches[2:])
    patches[2:] += patches[:2]
    return patches


def batch_sampler(rng: np.random.Generator, boxes: np.ndarray, min_scale: float) -> Patch:
    """Picks a crop by the rule of Caffe's batch sampler.

    All seven samplers run. The first keeps the whole image; samplers 2 to 6 take the first of 50
    random patches whose IoU with at least one object reaches 0.1, 0.3, 0.5, 0.7, 0.9; the seventh
    takes any patch if there is an object. One of the (one to seven) accepted patches is drawn.

    Args:
        rng: source of the patches and of the choice.
        boxes: float32 [n, 4], x1 y1 x2 y2 in fractions of the (zoomed-out) image.
        min_scale: smallest scale of a patch (0.3 in SSD).

    Returns:
        x1, y1, x2, y2 of the crop in the same fractions; `WHOLE` if nothing is to be cropped.
    """
    if not len(boxes):
        return WHOLE
    patches = sample_patches(rng, TRIALS * len(_THRESHOLDS), min_scale)  # [4, 300]
    accepted = _best_iou(patches, boxes).reshape(-1, TRIALS) >= _THRESHOLDS  # [6, 50]
    first = accepted.argmax(axis=1)
    candidates = np.flatnonzero(accepted[_SAMPLER, first])
    choice = int(rng.random() * (1 + len(candidates)))  # 0 is the first sampler
    if choice == 0:
        return WHOLE
    sampler = candidates[choice - 1]
    return tuple(patches[:, sampler * TRIALS + first[sampler]].tolist())


def _best_iou(patches: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Largest IoU of each of [4, m] patches with any of [n, 4] boxes -> [m]."""
    x1, y1, x2, y2 = patches  # [m]
    bx1, by1, bx2, by2 = boxes.T[..., None]  # [n, 1]
    width = np.minimum(x2, bx2) - np.maximum(x1, bx1)  # [n, m]
    height = np.minimum(y2, by2) - np.maximum(y1, by1)
    both = np.maximum(width, 0) * np.maximum(height, 0)
    either = (x2 - x1) * (y2 - y1) + (bx2 - bx1) * (by2 - by1) - both
    return (both / either).max(axis=0)


def to_fractions(boxes: np.ndarray, canvas: Canvas) -> np.ndarray:
    """Boxes float32 [n, 4] in pixels of the image to fractions of its canvas."""
    shift = np.array([canvas.x, canvas.y] * 2, np.float32)
    return (boxes + shift) / np.array([canvas.width, canvas.height] * 2, np.float32)


def centres_inside(boxes: np.ndarray, patch: Patch) -> np.ndarray:
    """Which boxes [n, 4] have their centre in the patch, borders included -> bool [n]."""
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    x1, y1, x2, y2 = patch
    return (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)


def share_inside(boxes: np.ndarray, patch: Patch) -> np.ndarray:
    """Share of the area of boxes [n, 4] that lies in the patch, float32 [n]; 0 where there is no area."""
    low = np.maximum(boxes[:, :2], np.array(patch[:2], np.float32))
    high = np.minimum(boxes[:, 2:], np.array(patch[2:], np.float32))
    inside, whole = np.maximum(high - low, 0).prod(1), (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return np.divide(inside, whole, out=np.zeros_like(whole), where=whole > 0)


def place(
    canvas: Canvas,
    width: int,
    height: int,
    size: Size,
    patch: Patch = WHOLE,
) -> Placement:
    """Works out where the image lands when a patch of its canvas becomes the output.

    Args:
        canvas: where the image lies.
        width: of the image, in pixels.
        height: of the image, in pixels.
        size: of the output.
        patch: x1 y1 x2 y2 in fractions of the canvas; offset and sides are rounded down to whole
            canvas pixels as in Caffe, sides to one pixel at least.
    """
    x0, x1, left, right = _place_axis(patch[0], patch[2], canvas.width, canvas.x, width, size[1])
    y0, y1, top, bottom = _place_axis(patch[1], patch[3], canvas.height, canvas.y, height, size[0])
    return Placement(Rect(x0, y0, x1, y1), Rect(left, top, right, bottom))


def shifted(placement: Placement, window: Window) -> Placement:
    """A placement in a whole resized image as one in the part of it that a window shows."""
    x0, y0, x1, y1 = placement.target
    target = Rect(x0 - window.x, y0 - window.y, x1 - window.x, y1 - window.y)
    return placement._replace(target=target)


def patch_size(canvas: Canvas, patch: Patch) -> Size:
    """Height and width of a patch in whole pixels of its canvas, as `place` cuts it."""
    x, y = (_cut(patch[i], patch[i + 2], (canvas.width, canvas.height)[i])[1] for i in (0, 1))
    return y, x


def _cut(low: float, high: float, canvas: int) -> tuple[int, int]:
    """Offset and length of a part of an axis, whole pixels."""
    start = min(int(low * canvas), canvas - 1)
    return start, min(max(int((high - low) * canvas), 1), canvas - start)


def _place_axis(
    low: float, high: float, canvas: int, offset: int, length: int, size: int
) -> tuple[int, int, int, int]:
    start, extent = _cut(low, high, canvas)
    begin, end = max(start - offset, 0), min(start + extent - offset, length)
    if begin >= end:
        return 0, 0, 0, 0
    scale = size / extent
    first = min(round((begin + offset - start) * scale), size - 1)
    last = max(round((end + offset - start) * scale), first + 1)
    return begin, end, first, last


def move_boxes(
    boxes: np.ndarray, placement: Placement, size: Size, *, orientation: Orientation
) -> np.ndarray:
    """Takes boxes from the image to the output, clipped to the output.

    Args:
        boxes: float32 [n, 4], x1 y1 x2 y2 in pixels of the image.
        placement: where the image lies in the output; ``source`` must have pixels.
        size: of the output.
        orientation: of the output.

    Returns:
        float32 [n, 4] in pixels of the output; boxes outside the output have no area.
    """
    (x0, y0, x1, y1), (left, top, right, bottom) = placement
    kx, ky = (right - left) / (x1 - x0), (bottom - top) / (y1 - y0)
    scale = np.array([kx, ky, kx, ky], np.float32)
    shift = np.array([left - x0 * kx, top - y0 * ky] * 2, np.float32)
    height, width = size
    moved = np.clip(boxes * scale + shift, 0, np.array([width, height] * 2, np.float32))
    x1, y1, x2, y2 = moved.T
    if orientation.flip:
        x1, x2 = width - x2, width - x1
    if orientation.flip_vertical:
        y1, y2 = height - y2, height - y1
    if (
        orientation.quarter
    ):  # what was at the bottom is on the left, what was on the left at the top
        x1, y1, x2, y2 = height - y2, x1, height - y1, x2
    return np.stack([x1, y1, x2, y2], axis=1)


def render(
    image: np.ndarray,
    placement: Placement,
    size: Size,
    *,
    interpolation: int,
    fill: Fill,
    orientation: Orientation,
    distort: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Samples the image into the output.

    The distortion is applied to whichever is smaller, the source pixels or the resized ones: it
    acts on single pixels, so that apart from rounding and saturation it commutes with resampling
    (on photographs the two orders differ by 0.3 grey levels on average, 2 in the worst of 112).
    The fill stays undistorted, as in Caffe, where the canvas is made after the distortion.

    Args:
        image: [H, W, C], uint8, uint16 or float32.
        placement: which pixels of ``image`` go where.
        size: of the output.
        interpolation: one of the values of `INTERPOLATIONS`.
        fill: C values of the output beside the image.
        orientation: of the output.
        distort: photometric changes of an image.

    Returns:
        [*size, C] of the image's type.
    """
    source, target = placement
    if not source.pixels:
        return blank(size, fill, image.dtype)
    pixels = image[source.y0 : source.y1, source.x0 : source.x1]
    if source.pixels <= target.pixels:
        pixels = distort(pixels)
    pixels = resize(pixels, target.x1 - target.x0, target.y1 - target.y0, interpolation)
    seen = Rect(
        max(target.x0, 0), max(target.y0, 0), min(target.x1, size[1]), min(target.y1, size[0])
    )
    if seen != target:
        rows = slice(seen.y0 - target.y0, seen.y1 - target.y0)
        pixels = pixels[rows, seen.x0 - target.x0 : seen.x1 - target.x0]
    if source.pixels > target.pixels:
        pixels = distort(pixels)
    if seen.pixels < size[0] * size[1]:
        output = blank(size, fill, image.dtype)
        output[seen.y0 : seen.y1, seen.x0 : seen.x1] = pixels
        pixels = output
    if orientation.flip or orientation.flip_vertical:
        code = (
            -1 if orientation.flip and orientation.flip_vertical else 1 if orientation.flip else 0
        )
        pixels = by_four(pixels, lambda part: cv2.flip(part, code))
    if orientation.quarter:
        pixels = by_four(pixels, lambda part: cv2.rotate(part, cv2.ROTATE_90_CLOCKWISE))
    return pixels
