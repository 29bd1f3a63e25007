"""Instance masks of PASCAL VOC: images of ``SegmentationObject`` whose values number the objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jdet.data.segmentation import Rle, encode_part
from jdet.types import DataError

VOID = 255
"""Value of pixels that belong to no object for sure, such as those along outlines; background here."""


def mask_file(folder: Path, id: str) -> Path:
    """Where the instances of an image of a VOC folder are."""
    return folder / "SegmentationObject" / f"{id}.png"


def read_instances(
    path: Path, objects: Sequence[int], count: int
) -> tuple[list[Rle | None], list[int]]:
    """The masks of an image's objects.

    By the devkit's rule the palette index of a pixel is the place of its object in the annotation, counted
    from 1; 0 is background.

    Args:
        path: PNG with a palette, or with one channel of such values.
        objects: place in the annotation, from 0, of each object that is wanted.
        count: of the objects in the annotation.

    Returns:
        A mask for each, None where no pixel has its number; and the numbers that are no object's.

    Raises:
        DataError: the file cannot be read, or has colours in place of numbers.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1"):
                raise DataError(
                    f"{path} has colours ({image.mode}), and no numbers of objects; save it with a palette"
                )
            values = np.asarray(image, np.uint8)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    height, width = values.shape
    masks: list[Rle | None] = []
    for place in objects:
        rows, columns = np.nonzero(values == place + 1)
        if not len(rows) or place + 1 >= VOID:
            masks.append(None)
            continue
        top, left = rows.min(), columns.min()
        part = np.zeros((rows.max() - top + 1, columns.max() - left + 1), bool)
        part[rows - top, columns - left] = True
        masks.append(encode_part(part, int(top), int(left), height, width))
    present = np.unique(values).tolist()
    return masks, [value for value in present if count < value < VOID]
