"""May the images of a set be mirrored, turned upside down, or turned by quarters? What its labels say.

Of an image that may be, training makes others for free; of one that may not, wrong ones: a left arrow that
is mirrored is a right one, and people do not hang from the ceiling.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jdet.data.objects import SetObjects

ENOUGH = 60
"""Objects from which on their places and shapes say something."""

NARROWER = 0.88
"""Ratio of the spread of places along y to that along x, under which images have an up: what stands on the
ground gathers around the horizon. 0.80 on photographs of COCO and 0.79 of Open Images; 0.96 and more
on microscopy, circuit boards and views from above."""

PERSPECTIVE = 0.1
"""Correlation of height in the image and log size, beyond that of x and log size: what is nearer is lower
and larger."""

ELONGATED = 0.7
"""Mean of a class's log aspect ratio, in standard deviations, from which on its objects stand or lie."""

SQUARE = 1.1
"""Ratio of the sides of images up to which a quarter turn inside a square input hardly stretches them."""

_WORDS = r"(?<![a-z])(?:{})(?![a-z])"
_SIDES = re.compile(_WORDS.format("left|right|west|east|lhs|rhs"))
_HEIGHTS = re.compile(_WORDS.format("up|down|upper|lower|top|bottom|north|south|upside"))
_TURNS = re.compile(r"clockwise|(?<![a-z])(?:ccw|cw)(?![a-z])")
_WRITING = re.compile(_WORDS.format("text|letters?|digits?|numbers?|characters?|words?|barcodes?"))


class Orientation(NamedTuple):
    """What may be done to the images of a set.

    Attributes:
        mirror: left and right may be exchanged.
        upside_down: above and below may be.
        quarter: images may be turned by 90 degrees.
        why: the reason of each, in this order.
    """

    mirror: bool
    upside_down: bool
    quarter: bool
    why: tuple[str, str, str]

    def describe(self) -> str:
        """One line."""
        names = ("mirrored", "upside down", "turned by quarters")
        return "; ".join(
            f"{name} {'yes' if allowed else 'no'} ({why})"
            for name, allowed, why in zip(names, self[:3], self.why, strict=True)
        )


def look(objects: SetObjects, class_names: Sequence[str], *, square: bool = False) -> Orientation:
    """What names of classes, and places and shapes of objects, allow.

    Args:
        objects: of the training images.
        class_names: K.
        square: whatever the images, square parts of them are seen.
    """
    mirror, height, turn = _by_names(class_names)
    ground = _up(objects)
    up = height or ground
    shape = turn or ground or ("" if square else _stretched(objects))
    shape = shape or _standing(objects, class_names)
    none = "no class name speaks of sides or writing"
    return Orientation(
        mirror=not mirror,
        upside_down=not up,
        quarter=not shape,
        why=(
            mirror or none,
            up or "objects lie and look alike above and below",
            shape or "objects have no direction, images are square",
        ),
    )


def _by_names(class_names: Sequence[str]) -> tuple[str, str, str]:
    """Why names forbid a mirror, an exchange of above and below, and a quarter turn; "" where not."""
    names = {name: re.sub(r"[_\W]+", " ", name.lower()) for name in class_names}

    def first(pattern: re.Pattern[str]) -> str:
        return next((f"class {name!r}" for name, text in names.items() if pattern.search(text)), "")

    written = first(_WRITING)
    if not written and len(names) > 1 and all(len(text.strip()) == 1 for text in names.values()):
        written = f"classes are single characters, such as {next(iter(names))!r}"
    spin = first(_TURNS)
    side, height = first(_SIDES), first(_HEIGHTS)
    return written or spin or side, written or spin or height, written or side or height


def _up(objects: SetObjects) -> str:
    """Why images have an up by the places of their objects; "" where they have none."""
    if len(objects.labels) < ENOUGH:
        return f"{len(objects.labels)} objects are too few to tell"
    places = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2 / objects.sizes - 0.5
    size = np.log(np.maximum(objects.sides, 1e-6))
    spread = places.std(0)
    if spread[1] < NARROWER * spread[0]:
        return (
            f"objects gather at one height: spread {spread[1]:.2f} of it, {spread[0]:.2f} of width"
        )
    if size.std() > 0 and spread.min() > 0:
        across, down = (float(np.corrcoef(places[:, axis], size)[0, 1]) for axis in (0, 1))
        if down > PERSPECTIVE and down > abs(across) + PERSPECTIVE:
            return f"objects are larger farther down: correlation {down:.2f}"
    return ""


def _stretched(objects: SetObjects) -> str:
    width, height = np.median(objects.sizes, axis=0)
    if max(width, height) > SQUARE * min(width, height):
        return f"images of {width:.0f}×{height:.0f} would be stretched"
    return ""


def _standing(objects: SetObjects, class_names: Sequence[str]) -> str:
    """The class whose objects are most of all higher than wide, or the reverse; "" where none is."""
    sides = np.maximum(objects.boxes[:, 2:] - objects.boxes[:, :2], 1e-6)
    ratio = np.log(sides[:, 1] / sides[:, 0])
    found = []
    for label in np.unique(objects.labels).tolist():
        own = ratio[objects.labels == label]
        if len(own) >= ENOUGH and own.std() > 0:
            found.append((abs(own.mean()) / own.std(), float(np.exp(own.mean())), label))
    strength, shape, label = max(found, default=(0.0, 1.0, 0))
    if strength < ELONGATED:
        return ""
    return f"{class_names[label]!r} is {shape:.2f} times as high as wide"
