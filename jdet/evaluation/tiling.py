"""Detections of tiles, merged into those of whole images: ``config.eval.tile``.

An object that the border of a tile cuts lies whole in a neighbour, if it is not larger than the overlap. So
a detection that touches a border inside the image is dropped where another tile holds it clear of its own
inner borders, for that one sees at least as much of the object. It has to be clear by twice the width of
a touch: two tiles whose boxes of one object differ by less cannot leave it to each other. What is left goes
through class-wise NMS in which only boxes of different tiles suppress each other: what the detector let
stand side by side in a tile stays. An object that is larger than the overlap can be found in parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jdet.data.batching import image_size
from jdet.data.tiles import Tile, TileRow, grid
from jdet.evaluation import detect
from jdet.evaluation.detect import Moved
from jdet.types import Batch, DataError, ImageDetections, Source

NEAR = 0.01
"""Share of a tile's side within which a box touches its border, one pixel at least: what a network predicts
for a cut object ends near the border, not on it."""


SAMPLED = 200
"""Images whose objects are held against the overlap."""


class Tiling(NamedTuple):
    """How images are cut into tiles, and what was found is merged.

    Attributes:
        side: of the tiles, pixels of the image.
        overlap: of neighbours, pixels, at least.
        iou_threshold: overlap from which the worse of two boxes of a class, of different tiles, is dropped.
        max_detections: of an image; 0: all.
    """

    side: int
    overlap: int
    iou_threshold: float
    max_detections: int

    @classmethod
    def of(cls, group: ConfigDict) -> Tiling | None:
        """That of a config's group ``eval.tile``; None where it is off."""
        return cls(**{field: group[field] for field in cls._fields}) if group.side else None

    def tiles(self, height: int, width: int) -> list[Tile]:
        """The tiles of an image."""
        return grid(height, width, self.side, self.overlap)

    def warning(self, source: Source) -> str:
        """What to say about objects that no tile is sure to hold whole; "" where there are none.

        Looks at ``SAMPLED`` images at most, and of them at those that are larger than a tile.
        """
        longest = []
        for place in range(min(len(source), SAMPLED)):
            index = place * len(source) // min(len(source), SAMPLED)
            try:
                example = source[index]
                size = image_size(source, index, example)
            except DataError:  # the evaluation has its own way to tell
                continue
            if max(size) > self.side:
                longest += np.max(example.boxes[:, 2:] - example.boxes[:, :2], axis=1).tolist()
        borders = 2 * max(1.0, NEAR * self.side)
        room = self.overlap - borders
        large = [length for length in longest if length > room]
        if not large:
            return ""
        # With room between borders of tiles of this side, and of twice the overlap where that is more.
        overlap = math.ceil(max(max(large) + borders + 1, 1.05 * max(large) + 2))
        side = max(self.side, 2 * overlap)
        return (
            f"{len(large)} of {len(longest)} sampled objects are longer than the {room:.0f} pixels that "
            f"config.eval.tile.overlap={self.overlap} leaves between borders, up to {max(large):.0f}, and "
            f"may be found in parts; --config.eval.tile.side={side} --config.eval.tile.overlap={overlap} "
            "has room for all"
        )

    def merge(self, parts: Sequence[tuple[Tile, Moved]], size: tuple[int, int], id: str) -> Moved:
        """The detections of an image.

        Args:
            parts: all tiles and what was found in each, in pixels of the tile; in any order.
            size: height and width of the image.
            id: its name.

        Returns:
            Detections in pixels of the image, best first; of equal scores those of the first tile.
        """
        parts = sorted(parts, key=lambda part: part[0])
        tiles = np.array([(t.x, t.y, t.x + t.width, t.y + t.height) for t, _ in parts], np.float32)
        owner = np.repeat(np.arange(len(parts)), [len(found.frames) for _, found in parts])
        corner = tiles[owner][:, [0, 1, 0, 1]]
        joined = Moved(
            image=ImageDetections(
                id=id,
                boxes=np.concatenate([found.image.boxes for _, found in parts]) + corner,
                scores=np.concatenate([found.image.scores for _, found in parts]),
                labels=np.concatenate([found.image.labels for _, found in parts]),
            ),
            frames=np.concatenate([found.frames for _, found in parts]) + corner,
            masks=_joined([found.masks for _, found in parts]),
            size=size,
        )
        boxes = joined.image.boxes
        near = np.maximum(1.0, NEAR * np.tile(tiles[:, 2:] - tiles[:, :2], 2))  # [tiles, xyxy]
        own = _inside(boxes, tiles, near, size)[np.arange(len(owner)), owner]
        # A box that its own tile cuts, and that another one holds clear, is the other's.
        rows = np.flatnonzero(own | ~_inside(boxes, tiles, 2 * near, size).any(axis=1))
        rows = rows[np.argsort(-joined.image.scores[rows], kind="stable")]
        several = _reached(boxes, tiles).sum(axis=1) > 1
        stays = _suppress(
            boxes[rows], joined.image.labels[rows], owner[rows], several[rows], self.iou_threshold
        )
        return joined.select(rows[stays][: self.max_detections or None])


def _joined(masks: Sequence[Any]) -> np.ndarray | None:
    return None if any(each is None for each in masks) else np.concatenate(masks)


def _inside(
    boxes: np.ndarray, tiles: np.ndarray, margin: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Which tiles hold which boxes clear of their borders inside the image, bool [n, tiles].

    ``margin`` [tiles, xyxy] is what has to lie between, pixels.
    """
    height, width = size
    outer = tiles == np.array([0, 0, width, height], np.float32)
    low = np.where(outer[:, :2], -np.inf, tiles[:, :2] + margin[:, :2])
    high = np.where(outer[:, 2:], np.inf, tiles[:, 2:] - margin[:, 2:])
    inside = np.ones((len(boxes), len(tiles)), bool)
    for axis in range(2):  # [n, tiles] at a time
        inside &= boxes[:, axis, None] > low[:, axis]
        inside &= boxes[:, 2 + axis, None] < high[:, axis]
    return inside


def _reached(boxes: np.ndarray, tiles: np.ndarray) -> np.ndarray:
    """Which boxes overlap or touch which tiles, bool [n, tiles]."""
    reached = np.ones((len(boxes), len(tiles)), bool)
    for axis in range(2):
        reached &= boxes[:, axis, None] <= tiles[:, 2 + axis]
        reached &= boxes[:, 2 + axis, None] >= tiles[:, axis]
    return reached


def _suppress(
    boxes: np.ndarray, labels: np.ndarray, owner: np.ndarray, several: np.ndarray, threshold: float
) -> np.ndarray:
    """Greedy NMS between tiles; boxes best first; bool [n], which stay.

    ``several`` are those that reach into more tiles than one; no other can have a double.
    """
    stays = np.ones(len(boxes), bool)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for label in np.unique(labels[several]):
        rows = np.flatnonzero(several & (labels == label))
        for place, row in enumerate(rows):
            if not stays[row]:
                continue
            later = rows[place + 1 :]
            later = later[stays[later] & (owner[later] != owner[row])]
            low = np.maximum(boxes[row, :2], boxes[later, :2])
            high = np.minimum(boxes[row, 2:], boxes[later, 2:])
            inner = np.prod(np.maximum(high - low, 0), axis=1)
            stays[later[inner > threshold * (area[row] + area[later] - inner)]] = False
    return stays


class TileMerger:
    """Detections of a stream of tiles, put together image by image."""

    def __init__(self, tiling: Tiling, rows: Sequence[TileRow], sizes: Sequence[tuple[int, int]]):
        """Starts empty.

        Args:
            tiling: how tiles were cut.
            rows: of this process's stream, in order.
            sizes: height and width of every image.
        """
        self._tiling, self._rows, self._sizes = tiling, rows, sizes
        self._place = 0
        self._held: dict[int, list[tuple[Tile, Moved]]] = {}

    def to_images(self, found: Any, batch: Batch, ids: Sequence[str]) -> list[ImageDetections]:
        """As ``detect.to_images``, for the next batch: one record per image whose last tile is in it."""
        rows = self._rows[self._place : self._place + len(batch.real)]
        self._place += len(rows)
        there = np.array([row.image >= 0 for row in rows])
        parts = iter(detect.moved(found, batch._replace(real=there), ids))
        images = []
        for row, real, id in zip(rows, batch.real, ids, strict=True):
            if row.image < 0:
                continue
            self._held.setdefault(row.image, []).append((row.tile, next(parts)))
            if row.last:
                whole = self._held.pop(row.image)
                if real:  # the image could be read
                    size = self._sizes[row.image]
                    images.append(self._tiling.merge(whole, size, id).pasted())
        return images
