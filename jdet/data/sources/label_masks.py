"""Masks of label files, held against their images and boxes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from jdet.data.segmentation import extent
from jdet.data.sources.annotations import Defect, LabelTable
from jdet.types import Example

SLACK = 1.0
"""Pixels by which a mask may leave its box, which is no defect: boxes are labelled in whole pixels."""


class LabelMasks:
    """The masks of a data set, in one string of bytes: no Python object per number, and quick to pickle."""

    def __init__(self, table: LabelTable, segmentations: Sequence[Any], told: Container[int] = ()):
        """Checks every mask and adds what is wrong to the defects of ``table``; as ``check_masks``."""
        masks, self._fits, defects = check_masks(table, segmentations, told)
        table.defects.extend(defects)
        texts = [json.dumps(mask, separators=(",", ":")).encode() for mask in masks]
        self._ends = np.cumsum([0, *map(len, texts)])
        self._bytes = b"".join(texts)
        self._kept = table.kept

    def added(self, example: Example, rows: slice) -> Example:
        """An example with the masks of its objects, which are ``rows`` of the label file's."""
        places = range(rows.start, rows.stop)
        ends = self._ends[rows.start : rows.stop + 1].tolist()
        masks = [json.loads(self._bytes[first:end]) for first, end in itertools.pairwise(ends)]
        kept = tuple(
            mask if self._fits[row] else None
            for mask, row in zip(masks, places, strict=True)
            if self._kept[row]
        )
        official = example.official and example.official._replace(masks=tuple(masks))
        return example._replace(masks=kept, official=official)


def check_masks(
    table: LabelTable, segmentations: Sequence[Any], told: Container[int] = ()
) -> tuple[list[Any], np.ndarray, list[Defect]]:
    """Says which of the masks of a data set can be used.

    Args:
        table: the objects.
        segmentations: of each object of ``table.official``, None where it has none.
        told: images of which the defects say already that they have no masks.

    Returns:
        The segmentations, None in place of what is none; bool for each, those with a part in their box,
        which training can use; and what is wrong with those of kept objects.
    """
    masks: list[Any] = []
    fits = np.zeros(len(segmentations), bool)
    defects = []
    for index, size in enumerate(table.sizes.tolist()):
        for row in range(*table.official_offsets[index : index + 2]):
            x, y, w, h = table.official.xywh[row].tolist()
            segmentation, what = segmentations[row] or None, "no mask"
            if segmentation is None:
                detail = "" if index in told else "it has no segmentation"
            else:
                try:
                    around = extent(segmentation, (size[0], size[1]))
                    fits[row], detail = _held_against(around, (x, y, x + w, y + h))
                    what = "mask cut" if fits[row] else what
                except ValueError as error:
                    segmentation, detail = None, str(error)
            masks.append(segmentation)
            if detail and table.kept[row]:
                box = f"object {x:.6g}, {y:.6g}, {w:.6g}, {h:.6g} (x y width height)"
                defects.append(Defect(table.ids[index], what, f"{box}: {detail}"))
    return masks, fits, defects


def _held_against(mask: Sequence[float], box: Sequence[float]) -> tuple[bool, str]:
    """Whether a mask has a part in its box, by the box around it, and what is wrong."""
    around = ", ".join(f"{value:.6g}" for value in mask)
    if min(mask[2], box[2]) <= max(mask[0], box[0]) or min(mask[3], box[3]) <= max(mask[1], box[1]):
        return False, f"its mask, from {around} (x1 y1 x2 y2), lies outside"
    beyond = max(box[0] - mask[0], box[1] - mask[1], mask[2] - box[2], mask[3] - box[3])
    return True, f"its mask, from {around} (x1 y1 x2 y2), leaves it" if beyond > SLACK else ""
