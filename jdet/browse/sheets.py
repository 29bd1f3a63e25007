"""Contact sheets: rows of batches as people look at them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from jdet.data.image_io import write_image
from jdet.data.tiles import Tile
from jdet.evaluation.display import Display
from jdet.evaluation.drawing import count_objects, draw_objects, with_header
from jdet.evaluation.masks import paste_masks
from jdet.types import Batch, Example, Source

COLUMNS, ROWS = 4, 4
"""Images of a sheet of a stream."""

GUTTER = 8
"""Pixels between images."""

BACKGROUND = (24, 26, 30)
STRIPES = ((52, 56, 64), (30, 33, 38))
"""RGB beside images, and of what pads one to the shape of its batch."""


class Sheet:
    """Draws rows of batches for one set of classes."""

    def __init__(self, class_names: Sequence[str], display: Display, side: int):
        """Takes what all images share.

        Args:
            class_names: K names, in label order.
            display: makes images for people of them.
            side: longer side of each, pixels.
        """
        self._names, self._display, self._side = class_names, display, side

    def tile(self, batch: Batch, row: int, source: Source, part: Tile | None = None) -> np.ndarray:
        """One image of a batch with its objects, below a line of text, uint8 [h, w, 3].

        Args:
            batch: on the host.
            row: of the image.
            source: that ``batch.index`` counts in, for the name of the image.
            part: of the image that the network sees, named as well; None: all of it.
        """
        image = np.array(self._display(batch.images[row]))
        height, width = batch.image_sizes[row].tolist()
        _hatch(image, height, width)
        rows = np.flatnonzero(batch.valid[row])
        boxes = batch.boxes[row][rows]
        masks = None
        if batch.masks is not None:
            bitmaps = batch.masks[row][rows]
            pasted = paste_masks(bitmaps, boxes, *image.shape[:2])
            known = bitmaps.any(axis=(1, 2))
            masks = tuple(mask if k else None for mask, k in zip(pasted, known))
        seen = Example(
            id=_name(source[int(batch.index[row])]) if batch.real[row] else "",
            image=image,
            boxes=boxes,
            labels=batch.labels[row][rows],
            ignore=batch.ignore[row][rows],
            areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1),
            masks=masks,
        )
        drawn = draw_objects(image, seen, self._names, side=self._side)
        note = count_objects(seen) if batch.real[row] else "could not be read"
        place = f" at {part.x}, {part.y}" if part else ""
        return with_header(drawn, "", note, f"{seen.id}{place}")


def _name(example: Example) -> str:
    """What an image is called; of a number, as in COCO, with the name of its file."""
    file = Path(example.image).name if isinstance(example.image, str) else ""
    numbered = example.id.isdecimal() and file and Path(file).stem != example.id
    return f"{example.id} {file}" if numbered else example.id


def write_sheets(
    path: Path, tiles: Sequence[np.ndarray | None], *, columns: int = COLUMNS, rows: int = ROWS
) -> list[str]:
    """Writes images in rows, on as many sheets as they need.

    Args:
        path: of the sheet; where there are several, a number stands before the suffix.
        tiles: uint8 [h, w, 3] of any sizes, row by row; None leaves a place empty.
        columns: of a sheet.
        rows: of a sheet.

    Returns:
        A line for each sheet.

    Raises:
        DataError: it cannot be written.
    """
    size = columns * rows
    lines = []
    for number in range(math.ceil(len(tiles) / size)):
        part = tiles[number * size : (number + 1) * size]
        target = path.with_stem(f"{path.stem}_{number}") if len(tiles) > size else path
        write_image(target, _grid(part, min(columns, len(part))))
        lines.append(f"{target}: {sum(tile is not None for tile in part)} images")
    return lines


def _grid(tiles: Sequence[np.ndarray | None], columns: int) -> np.ndarray:
    """Images side by side; each row is as high and each column as wide as its largest."""
    shapes = np.array([(0, 0) if tile is None else tile.shape[:2] for tile in tiles])
    places = np.stack(np.divmod(np.arange(len(tiles)), columns), axis=1)
    heights, widths = (
        [int(shapes[places[:, axis] == i, axis].max()) for i in range(places[:, axis].max() + 1)]
        for axis in (0, 1)
    )
    tops, lefts = (
        GUTTER + np.cumsum([0, *(s + GUTTER for s in sides)]) for sides in (heights, widths)
    )
    canvas = np.full((int(tops[-1]), int(lefts[-1]), 3), BACKGROUND, np.uint8)
    for tile, (row, column) in zip(tiles, places.tolist()):
        if tile is not None:
            top, left = int(tops[row]), int(lefts[column])
            canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return canvas


def _hatch(image: np.ndarray, height: int, width: int) -> None:
    """Hatches what lies right of and below the content of an input, in place."""
    whole_height, whole_width = image.shape[:2]
    if (height, width) == (whole_height, whole_width):
        return
    step = max(4, max(image.shape[:2]) // 40)
    y, x = np.mgrid[:whole_height, :whole_width]
    stripes = np.array(STRIPES, np.uint8)[(x + y) // step % 2]
    beside = (y >= height) | (x >= width)
    image[beside] = stripes[beside]
    cv2.rectangle(image, (-1, -1), (width, height), (255, 255, 255), 1)
