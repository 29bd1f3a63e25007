"""What the label files of all layouts come to before they are checked: images with their objects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdet.types import DataError

ROUND = 64
"""Corners of the polygon that stands for an ellipse."""


class RawObject(NamedTuple):
    """One object as a label file has it.

    Attributes:
        name: of its class.
        box: x1 y1 x2 y2 as written, by the convention of its source.
        polygons: [[x, y, x, y, …], …] by the same convention, or a run-length encoding of the whole image;
            None where there is a box alone.
        ignore: difficult, or a group.
    """

    name: str
    box: tuple[float, float, float, float]
    polygons: Any = None
    ignore: bool = False


class ImageRecord(NamedTuple):
    """One image as label files have it.

    Attributes:
        where: label file, with a line where it has several images, for messages; "" where there is none.
        image: path of the image, or of the several files that make it; "" where it was not found.
        split: "train", "val" …; "" where nothing says.
        objects: of the image; empty for one in which nothing is to be found.
        size: height and width where the label file says.
        error: what is wrong with it; then nothing else counts.
    """

    where: str
    image: str | tuple[str, ...] = ""
    split: str = ""
    objects: tuple[RawObject, ...] = ()
    size: tuple[int, int] | None = None
    error: DataError | None = None


def attempt(where: str, split: str, read: Callable[[], ImageRecord]) -> ImageRecord:
    """The record that ``read`` makes, or one with its error, which then begins with ``where``."""
    try:
        return read()
    except DataError as error:
        text = str(error)
        named = text if text.startswith(where) else f"{where}: {text}"
        return ImageRecord(where, split=split, error=DataError(named))


def numbers(values: Iterable[Any], what: str) -> list[float]:
    """Coordinates as numbers.

    Raises:
        DataError: ``what``, and the value that is none, or is not finite.
    """
    found = []
    for value in values:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise DataError(f"{what} has {value!r}, which is no number")
        found.append(number)
    return found


def polygon(values: Sequence[Any], what: str) -> list[float]:
    """The points of a polygon as x y x y ….

    Raises:
        DataError: ``what``, and that they are not two for each point, or none, or no numbers.
    """
    if len(values) % 2 or not len(values):
        raise DataError(
            f"{what} has {len(values)} coordinates; a polygon is x y x y …, two for each point"
        )
    return numbers(values, what)


def hull(polygons: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """The box around polygons, x1 y1 x2 y2."""
    x = [value for points in polygons for value in points[0::2]]
    y = [value for points in polygons for value in points[1::2]]
    return min(x), min(y), max(x), max(y)


def ellipse(
    x: float, y: float, rx: float, ry: float
) -> tuple[tuple[float, float, float, float], list[list[float]]]:
    """The box around an ellipse, and a polygon in its place.

    Args:
        x: of the centre.
        y: of the centre.
        rx: half its width.
        ry: half its height.
    """
    angles = np.linspace(0, 2 * np.pi, ROUND, endpoint=False)
    points = np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)
    return (x - rx, y - ry, x + rx, y + ry), [points.ravel().tolist()]


def turned(box: Sequence[float], degrees: float) -> list[float]:
    """The corners of a box that is turned about its centre, clockwise as it is seen, as x y x y …."""
    x1, y1, x2, y2 = box
    centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]) - centre
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return (corners @ np.array([[cosine, sine], [-sine, cosine]]) + centre).ravel().tolist()
