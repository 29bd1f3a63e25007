"""Large images in tiles at their own resolution: grids for testing, and random tiles for training."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jdet.data.reader import Reader
from jdet.data.transforms.element import Element
from jdet.data.transforms.finish import Finish, Row
from jdet.data.transforms.resize import Resize


class Tile(NamedTuple):
    """A part of an image, in whole pixels.

    Attributes:
        y: its first row.
        x: its first column.
        height: rows.
        width: columns.
    """

    y: int
    x: int
    height: int
    width: int

    def cut(self, image: np.ndarray) -> np.ndarray:
        """The part of an image [H, W, C], without a copy."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


def starts(length: int, side: int, overlap: int) -> list[int]:
    """Where tiles begin along one side of an image: evenly spread, the last at its end.

    Neighbours share ``overlap`` pixels at least. A side of 1000 with tiles of 400 and an overlap of 100 has
    tiles at 0, 300 and 600; an image that is not larger than a tile has one.
    """
    if length <= side:
        return [0]
    last = -((overlap - length) // (side - overlap)) - 1  # number of tiles - 1
    return [round(i * (length - side) / last) for i in range(last + 1)]


def grid(height: int, width: int, side: int, overlap: int) -> list[Tile]:
    """The tiles of an image, row by row; they are smaller than ``side`` only where the image is."""
    return [
        Tile(y, x, min(side, height), min(side, width))
        for y in starts(height, side, overlap)
        for x in starts(width, side, overlap)
    ]


class TileRow(NamedTuple):
    """One row of a batch of tiles.

    Attributes:
        image: index in the source; -1 for a row that fills up a batch.
        tile: its part of the image.
        shape: index of the shape of the network input.
        last: of the image in the order of its process.
    """

    image: int
    tile: Tile
    shape: int
    last: bool


def tile_rows(
    sizes: Sequence[tuple[int, int]],
    resize: Resize,
    *,
    side: int,
    overlap: int,
    local: int,
    processes: int,
) -> list[list[TileRow]]:
    """The tiles of a set, dealt out: all tiles of an image belong to one process.

    Every process has equally many rows, in whole batches of one shape each.

    Args:
        sizes: height and width of every image.
        resize: what the network sees of tiles.
        side: of the tiles.
        overlap: of neighbours, at least.
        local: rows of a batch of one process.
        processes: how many there are.

    Returns:
        The rows of each process, in order.
    """
    shapes = range(len(resize.shapes))
    dealt: list[list[list[TileRow]]] = [[[] for _ in shapes] for _ in range(processes)]
    for image, (height, width) in enumerate(sizes):
        for tile in grid(height, width, side, overlap):
            shape = resize.shape_of(tile.height, tile.width)
            dealt[image % processes][shape].append(TileRow(image, tile, shape, last=False))
    found: list[list[TileRow]] = []
    for own in dealt:
        rows: list[TileRow] = []
        for shape in shapes:
            most = max(len(each[shape]) for each in dealt)
            filler = TileRow(-1, Tile(0, 0, 0, 0), shape, last=False)
            rows += own[shape] + [filler] * (-(-most // local) * local - len(own[shape]))
        ends = {row.image: place for place, row in enumerate(rows) if row.image >= 0}
        for place in ends.values():
            rows[place] = rows[place]._replace(last=True)
        found.append(rows)
    return found


class _Newest:
    """The images read last, so that an image is read once for all of its tiles; empty after pickling."""

    KEPT = 2

    def __init__(self, reader: Reader):
        self._reader = reader
        self._held: dict[int, Element] = {}
        self._lock = threading.Lock()

    def __reduce__(self):
        return _Newest, (self._reader,)

    def __getitem__(self, index: int) -> Element:
        with self._lock:
            if index not in self._held:
                while len(self._held) >= self.KEPT:
                    del self._held[next(iter(self._held))]
                self._held[index] = self._reader[index]
            return self._held[index]


class TileReader:
    """Tiles of a source as finished rows; ``real`` for the last of each image alone.

    ``original_sizes`` are those of the tiles; rows that only fill up are blank. Where ``finish`` has rows
    for objects, every tile is an image of its own, ``real`` with all that it shows; what its border cuts
    has ``ignore``.
    """

    def __init__(self, reader: Reader, rows: Sequence[TileRow], finish: Finish):
        """Args are the images, the rows of this process, and what makes network inputs of tiles."""
        self._images, self._rows, self._finish = _Newest(reader), rows, finish

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> Row:
        row = self._rows[place]
        element = Element() if row.image < 0 else self._images[row.image]
        objects = self._finish.max_boxes > 0
        if (image := element.image) is not None:
            if objects:
                element = _shown(element, row.tile)
            element = element._replace(image=row.tile.cut(image))
        shape = self._finish.resize.shapes[row.shape]
        made = self._finish(element._replace(shape=shape))
        real = np.bool_((row.last or objects) and made.fields.real)
        return made._replace(fields=made.fields._replace(real=real))


def _clipped(boxes: np.ndarray, tile: Tile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes in pixels of a tile and clipped to it, their areas, and those of the whole boxes."""
    corner = np.array([tile.x, tile.y] * 2, np.float32)
    inner = np.clip(boxes - corner, 0, np.array([tile.width, tile.height] * 2, np.float32))
    area, whole = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (inner, boxes))
    return inner, area, whole


def _shown(element: Element, tile: Tile) -> Element:
    """The objects that a tile shows, in its pixels and without masks; cut ones have ``ignore``."""
    boxes, area, _ = _clipped(element.boxes, tile)
    keep = np.flatnonzero(area > 0)
    cut = np.any(boxes + np.array([tile.x, tile.y] * 2, np.float32) != element.boxes, axis=1)
    return element._replace(
        boxes=boxes[keep],
        labels=element.labels[keep],
        ignore=(element.ignore | cut)[keep],
        masks=None,
    )


@dataclasses.dataclass(frozen=True)
class RandomTile:
    """A random operation before all others: one tile of an image at its own resolution.

    Objects are cut at the border of the tile, and those of which less than ``share`` of the area is left
    are no objects of it. An image that is not larger than a tile stays whole along that side.

    Attributes:
        side: of the tile, pixels of the image.
        share: of its area that an object must have in the tile to stay.
        objects: probability that the tile is laid around an object (one of those without ``ignore``, all
            alike), at random within the tile; otherwise it lies anywhere.
    """

    side: int
    share: float = 0.5
    objects: float = 0.5

    def __call__(self, element: Element, rng: np.random.Generator) -> Element:
        """Cuts an element; four numbers are taken from the generator in any case."""
        fires, which, *places = rng.random(4).tolist()
        if element.image is None:
            return element
        size = element.image.shape[:2]
        candidates = element.boxes[~element.ignore]
        box = None
        if len(candidates) and fires < self.objects:
            box = candidates[int(which * len(candidates))]
        first = []
        for axis, (length, u) in enumerate(zip(size, places, strict=True)):
            low, high = 0, max(length - self.side, 0)
            if box is not None:  # as much of it as fits
                near, far = float(box[1 - axis]), float(box[3 - axis])
                low, high = sorted((int(np.ceil(far)) - self.side, int(near)))
                low, high = (min(max(v, 0), max(length - self.side, 0)) for v in (low, high))
            first.append(low + int(u * (high - low + 1)))
        tile = Tile(first[0], first[1], min(self.side, size[0]), min(self.side, size[1]))
        return self._cut(element, tile, size)

    def _cut(self, element: Element, tile: Tile, size: tuple[int, int]) -> Element:
        assert element.image is not None
        boxes, area, whole = _clipped(element.boxes, tile)
        keep = np.flatnonzero((area > 0) & (area >= self.share * whole))
        masks: Any = element.masks and tuple(element.masks[i] for i in keep)
        return element._replace(
            image=tile.cut(element.image),
            boxes=boxes[keep],
            labels=element.labels[keep],
            ignore=element.ignore[keep],
            masks=masks,
            cut_from=(tile.y, tile.x, *size),
        )
