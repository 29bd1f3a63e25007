"""Masks of label files, held against their images and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jdet.data.segmentation import check, extent
from jdet.data.sources.annotations import Defect, LabelTable

SLACK = 1.0
"""Pixels by which a mask may leave its box, which is no defect: boxes are labelled in whole pixels."""


def check_masks(
    table: LabelTable, segmentations: Sequence[Any]
) -> tuple[list[Any], np.ndarray, list[Defect]]:
    """Says which of the masks of a data set can be used.

    Args:
        table: the objects.
        segmentations: of each object of ``table.official``, None where it has none.

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
                detail = "it has no segmentation"
            else:
                try:
                    check(segmentation, *size)
                    fits[row], detail = _held_against(extent(segmentation), (x, y, x + w, y + h))
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
