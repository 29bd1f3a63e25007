"""Segmentations as COCO's files have them, polygons or run-length encodings: checked, read into runs.

A run-length encoding (RLE) lists the lengths of runs of background and object in turn, background first,
down the columns of the whole image. COCO has it in two forms: with its numbers in a list, and compressed to
text (``maskApi.c`` of pycocotools: six bits to a character, from the fourth number on differences to the
number two before).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

Rle = dict[str, Any]
"""``{"size": [height, width], "counts": text}``: compressed; text, not bytes, so that JSON can hold it."""


def to_rle(segmentation: Any, height: int, width: int) -> Rle:
    """A segmentation of COCO's files as a compressed run-length encoding.

    Args:
        segmentation: polygons, [[x, y, x, y, …], …], of which the union counts; or a run-length encoding,
            with its numbers in a list or compressed.
        height: of the image, pixels.
        width: of the image.

    Raises:
        ValueError: it is none of these, or not of this image: no polygon has three points, or the size of
            the run-length encoding is another, or its runs do not fill it.
    """
    if isinstance(segmentation, Mapping):
        run_ends(segmentation, height, width)
        if isinstance(segmentation["counts"], (str, bytes)):
            return plain(segmentation)
        uncompressed: Any = dict(segmentation)
        return plain(coco_mask.frPyObjects(uncompressed, height, width))
    parts: Any = polygons(segmentation)
    return plain(coco_mask.merge(coco_mask.frPyObjects(parts, height, width)))


def encode(mask: np.ndarray) -> Rle:
    """The encoding of a mask, bool or uint8 of 0 and 1 [H, W]."""
    return plain(coco_mask.encode(np.asfortranarray(mask, np.uint8)))


def encode_part(part: np.ndarray, top: int, left: int, height: int, width: int) -> Rle:
    """The encoding of a mask that is empty outside a part of its image, by that part alone.

    Args:
        part: bool [h, w].
        top: first row of the image that it covers.
        left: first column.
        height: of the image.
        width: of the image.
    """
    steps = np.diff(np.pad(part.T.astype(np.int8), ((0, 0), (1, 1))))  # down the columns
    column, row = np.nonzero(steps)
    turns = (left + column) * height + top + row  # background to object, object to background, …
    same = np.flatnonzero(turns[:-1] == turns[1:])  # on into the next column without a gap
    turns = np.delete(turns, [same, same + 1])
    counts = np.diff(turns, prepend=0, append=height * width)
    if counts[-1] == 0:
        counts = counts[:-1]
    uncompressed: Any = {"size": [height, width], "counts": counts.tolist()}
    return plain(coco_mask.frPyObjects(uncompressed, height, width))


def decode(segmentation: Any, height: int, width: int) -> np.ndarray:
    """The mask of a segmentation, uint8 [height, width] of 0 and 1.

    Raises:
        ValueError: as in ``to_rle``.
    """
    return columns(segmentation, height, width, 0, width).T


def columns(segmentation: Any, height: int, width: int, first: int, end: int) -> np.ndarray:
    """Columns ``first`` … ``end - 1`` of the mask of a segmentation, uint8 [end - first, height].

    Raises:
        ValueError: as in ``to_rle``.
    """
    ends = run_ends(segmentation, height, width)
    runs = np.diff(np.clip(ends, first * height, end * height), prepend=first * height)
    inside = (np.arange(len(runs)) & 1).astype(np.uint8)
    return np.repeat(inside, runs).reshape(end - first, height)


def plain(rle: Mapping[str, Any]) -> Rle:
    """A compressed encoding of pycocotools as JSON can hold it."""
    counts = rle["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": [int(side) for side in rle["size"]], "counts": text}


def polygons(segmentation: Any) -> list[list[float]]:
    """The polygons of a segmentation that are some: those of two points and less are left out.

    (pycocotools would take two points, four numbers, for a box.)

    Raises:
        ValueError: it has none, or coordinates that are no numbers or not two for each point.
    """
    if not isinstance(segmentation, (list, tuple)) or not segmentation:
        raise ValueError(
            f"a segmentation is polygons or a run-length encoding, not {_short(segmentation)}"
        )
    nested = isinstance(segmentation[0], (list, tuple))
    found: list[list[float]] = []
    for polygon in segmentation if nested else [segmentation]:
        try:
            # A quick look at them all: of text there is no sum, and that of nan is not finite.
            fine = math.isfinite(sum(polygon)) and len(polygon) % 2 == 0
        except (TypeError, OverflowError):
            fine = False
        if not fine:
            raise ValueError(f"a polygon is x y x y …, in numbers, not {_short(polygon)}")
        if len(polygon) >= 6:
            found.append(list(polygon))
    if not found:
        raise ValueError(f"a polygon has three points at least: {_short(segmentation)}")
    return found


def counts_of(rle: Mapping[str, Any]) -> np.ndarray:
    """Lengths of the runs of an encoding in either form, int64; background and object in turn.

    Raises:
        ValueError: they are none.
    """
    counts = rle["counts"]
    if not isinstance(counts, (str, bytes)):
        found = np.asarray(counts)
        whole = found.dtype.kind in "iu" or not found.size
        if found.ndim != 1 or not whole or np.any(found < 0):
            raise ValueError(f"the counts of a run-length encoding are {_short(counts)}")
        return found.astype(np.int64)
    try:
        text = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError:
        text = b"\xff"
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not len(codes):
        return codes
    last = (codes & 32) == 0  # of the characters of a number
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends + 1])[:-1]
    lengths = ends - starts + 1
    if np.any((codes < 0) | (codes > 63)) or not last[-1] or lengths.max() > 12:
        raise ValueError(f"the counts {_short(counts)} are no compressed run-length encoding")
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & 31) << (5 * place), starts)
    numbers -= np.where(codes[ends] & 16, np.int64(1) << (5 * lengths), 0)
    numbers[1::2], numbers[2::2] = np.cumsum(numbers[1::2]), np.cumsum(numbers[2::2])
    if np.any(numbers < 0):
        raise ValueError(f"the counts {_short(counts)} have runs of negative length")
    return numbers


def box_to_rle(xywh: Sequence[float], height: int, width: int) -> Rle:
    """The pixels of a box, x y width height in continuous pixels, as pycocotools fills one."""
    boxes: Any = np.array([xywh], np.float64)
    return plain(coco_mask.frPyObjects(boxes, height, width)[0])


def run_ends(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Where the runs of a segmentation end, int64, in pixels down the columns of its image.

    Pixel p belongs to the object where ``np.searchsorted(ends, p, side="right")`` is odd.

    Raises:
        ValueError: as in ``to_rle``.
    """
    if not isinstance(segmentation, Mapping):
        segmentation = to_rle(segmentation, height, width)
    else:
        _check_size(segmentation, height, width)
    ends = np.cumsum(counts_of(segmentation))
    _check_sum(ends, height, width)
    return ends


def extent(
    segmentation: Any, size: tuple[int, int] | None = None
) -> tuple[float, float, float, float]:
    """The box around a segmentation, which is checked.

    Args:
        segmentation: as in ``to_rle``.
        size: height and width of the image; None: those that a run-length encoding has itself.

    Returns:
        x1 y1 x2 y2, continuous pixels; zeros where it has no pixel.

    Raises:
        ValueError: as in ``to_rle``.
    """
    if isinstance(segmentation, Mapping):
        height, width = size or _size(segmentation)
        ends = run_ends(segmentation, height, width)
        first, last = ends[:-1:2], ends[1::2] - 1  # of the runs of the object
        some = last >= first
        first, last = first[some], last[some]
        if not len(first):
            return 0.0, 0.0, 0.0, 0.0
        low, high = 0, height - 1
        if np.all(first // height == last // height):  # no run goes on in the next column
            low, high = int((first % height).min()), int((last % height).max())
        return float(first[0] // height), float(low), float(last[-1] // height + 1), high + 1.0
    parts = polygons(segmentation)
    x = [value for polygon in parts for value in polygon[0::2]]
    y = [value for polygon in parts for value in polygon[1::2]]
    return float(min(x)), float(min(y)), float(max(x)), float(max(y))


def _size(rle: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width that an encoding says it is of.

    Raises:
        ValueError: it does not, or has no counts.
    """
    size = rle.get("size")
    if "counts" not in rle or not isinstance(size, (list, tuple)) or len(size) != 2:
        raise ValueError(f"a segmentation is polygons or a run-length encoding, not {_short(rle)}")
    return size[0], size[1]


def _check_size(rle: Mapping[str, Any], height: int, width: int) -> None:
    size = _size(rle)
    if size != (height, width):
        raise ValueError(
            f"a run-length encoding of {size[1]}x{size[0]} in an image of {width}x{height}"
        )


def _check_sum(ends: np.ndarray, height: int, width: int) -> None:
    found = int(ends[-1]) if len(ends) else 0
    if found != height * width:
        raise ValueError(
            f"the runs of a run-length encoding cover {found} pixels of {width}x{height} = {height * width}"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
