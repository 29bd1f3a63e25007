"""What the sizes of a set's objects ask for: size of the network's input, tiles, zooming and cropping."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from jdet.data.objects import SetObjects
from jdet.detectors.pyramid import FEWEST_OBJECTS

SMALLEST = 12.0
"""Size, pixels of the network's input, that the small objects of every class should have."""

TOO_SMALL = 8.0
"""Size under which images are better seen in tiles."""

ONE_SCALE = 4.0
"""Ratio of the 90th to the 10th percentile of sizes under which a set has one scale, as microscopy has."""

ROOM_OUT = 24.0
"""Size of small objects from which on images may be zoomed out: they keep some pixels."""

MULTIPLE = 32


class Scales(NamedTuple):
    """What was chosen.

    Attributes:
        side: of the network's input, pixels.
        tile: side of the tiles in which images are seen, pixels of the image; 0: whole.
        overlap: of neighbouring tiles at evaluation, pixels of the image.
        crowd: objects that a tile, or an image where there are none, may have.
        crop_scale: smallest relative side of a random crop.
        expand: probability of zooming out.
        why: of the side, of the tile, and of zoom and crops.
    """

    side: int
    tile: int
    overlap: int
    crowd: int
    crop_scale: float
    expand: float
    why: tuple[str, str, str]


def small(objects: SetObjects) -> float:
    """The 10th percentile of the relative sizes of the class in which it is least.

    Classes with fewer than ten objects decide nothing, unless all have fewer.
    """
    relative, counts = objects.relative, np.bincount(objects.labels)
    chosen = np.flatnonzero(counts >= FEWEST_OBJECTS)
    if not len(chosen):
        return float(np.quantile(relative, 0.1))
    return min(float(np.quantile(relative[objects.labels == label], 0.1)) for label in chosen)


def choose(
    objects: SetObjects, low: int, high: int, *, side: int = 0, tile: int | None = None
) -> Scales:
    """Chooses sizes.

    Args:
        objects: of the training images, some at least.
        low: least side of the network's input, pixels.
        high: largest.
        side: chosen already; 0: by the objects.
        tile: chosen already, 0 for whole images; None: by the objects.
    """
    least = small(objects)
    wanted = SMALLEST / max(least, 1e-6)
    size = side or int(np.clip(math.ceil(wanted / MULTIPLE) * MULTIPLE, low, high))
    shown = least * size
    by_side = f"the small objects of the smallest class, {least:.3f} of the image, have {shown:.0f} pixels"
    if side:
        by_side += ", given"
    pixels = float(np.median(np.sqrt(objects.sizes.prod(-1))))
    cut, by_tile = _tile(objects, least * pixels, size, shown) if tile is None else (tile, "given")
    overlap = 0
    if cut:
        shown = least * pixels * size / cut
        overlap = int(min(np.quantile(objects.sides, 0.95) + 8, cut // 2))
    low_size, high_size = np.quantile(objects.sides, (0.1, 0.9))
    spread = high_size / max(low_size, 1e-6)
    one, room = spread < ONE_SCALE, shown >= ROOM_OUT
    by_zoom = f"sizes differ {spread:.1f}-fold, small objects have {shown:.0f} pixels"
    return Scales(
        side=size,
        tile=cut,
        overlap=overlap,
        crowd=_crowd(objects, cut),
        crop_scale=0.6 if one else 0.3,
        expand=0.5 if room and not one else 0.0,
        why=(by_side, by_tile, by_zoom),
    )


def _tile(objects: SetObjects, least: float, size: int, shown: float) -> tuple[int, str]:
    """Side of the tiles, and why; ``least`` is a small object's size in pixels of the image."""
    if shown >= TOO_SMALL:
        return 0, f"small objects have {shown:.0f} pixels in whole images"
    # As large as makes small objects large enough, but twice as large as the large ones.
    wanted = max(least * size / SMALLEST, 2 * float(np.quantile(objects.sides, 0.95)), 32.0)
    tile = math.ceil(wanted / 16) * 16
    whole = float(np.median(objects.sizes.min(-1)))
    if tile > 0.7 * whole:
        return (
            0,
            f"tiles that hold the large objects are no smaller than images, {whole:.0f} pixels",
        )
    return tile, f"small objects would have {shown:.1f} pixels, and have {least * size / tile:.0f}"


def _crowd(objects: SetObjects, tile: int) -> int:
    """Objects of the image, or of the tile-sized part of one, that has most; at least 1."""
    if not tile:
        return objects.most
    centres = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2
    most = 1
    for image in np.unique(objects.image).tolist():
        own = centres[objects.image == image]
        for shift in (0, tile // 2):
            cells = np.floor((own + shift) / tile).astype(int)
            most = max(most, int(np.unique(cells, axis=0, return_counts=True)[1].max()))
    return min(2 * most, objects.most)  # a tile lies anywhere, and shows parts of others
