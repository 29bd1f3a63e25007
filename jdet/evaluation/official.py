"""What the official protocols of VOC and COCO have in common: whose objects, in which order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jdet.data.sources.coco import xywh_to_xyxy, xyxy_to_xywh
from jdet.types import DataError, Example, ImageDetections, OfficialObjects


def official_of(example: Example) -> OfficialObjects:
    """The objects that official numbers are measured on: the label file's, else the example's own.

    Raises:
        DataError: a coordinate is not a finite number.
    """
    found = example.official
    if found is None:
        found = OfficialObjects(
            xywh=exact_xywh(example.boxes).reshape(-1, 4),
            labels=np.asarray(example.labels),
            ignore=np.asarray(example.ignore, bool),
            areas=np.asarray(example.areas),
            masks=example.masks,
        )
    if not np.isfinite(found.xywh).all():
        raise DataError(
            f"image {example.id}: an object's box {found.xywh.tolist()} is not finite; correct the labels"
        )
    return found


def altered(example: Example) -> int:
    """How many objects of the label file training uses otherwise: cut at the border, or not at all."""
    if example.official is None:
        return 0
    labelled = xywh_to_xyxy(example.official.xywh).astype(np.float32).tolist()
    used = {tuple(box) for box in np.asarray(example.boxes, np.float32).tolist()}
    return sum(tuple(box) not in used for box in labelled)


def official_order(places: Sequence[tuple[int | None, str]]) -> list[int]:
    """The order in which the images of a set are evaluated, whatever the order they came in.

    Where detections of several images have equal scores, it decides about the AP. COCO takes images by
    their id, VOC as the split lists them.

    Args:
        places: of each image its rank in the data set (None where the source does not say), and its name.

    Returns:
        Indices into ``places``: by rank; without ranks by name, as numbers where all are.
    """
    if all(rank is not None for rank, _ in places):
        return sorted(range(len(places)), key=lambda i: places[i][0] or 0)
    numbers = all(name.isascii() and name.isdigit() for _, name in places)
    return sorted(
        range(len(places)), key=lambda i: (int(places[i][1]) if numbers else 0, places[i][1])
    )


def finite(detections: ImageDetections) -> ImageDetections:
    """The detections whose boxes and scores are finite numbers: others have no rank and no overlap."""
    boxes = np.asarray(detections.boxes).reshape(-1, 4)
    keep = np.isfinite(boxes).all(-1) & np.isfinite(detections.scores)
    return detections if keep.all() else detections.select(keep)


def exact_xywh(boxes: np.ndarray) -> np.ndarray:
    """Boxes [n, 4] as x y width height in float64, where no difference of float32 numbers is rounded."""
    return xyxy_to_xywh(np.asarray(boxes, np.float64))
