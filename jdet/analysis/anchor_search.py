"""Search for anchors on a pyramid that fit given objects: their scale and their aspect ratios."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

from jdet.analysis.box_search import Proposal, judge
from jdet.detectors.pyramid import FEWEST_OBJECTS, MISSED_SHARE
from jdet.ops import anchors
from jdet.ops.coverage import Objects

SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
"""Smallest sides, in strides."""

RATIOS = ((0.5, 1.0, 2.0), (0.33, 1.0, 3.0), (0.2, 0.5, 1.0, 2.0, 5.0), (0.1, 0.3, 1.0, 3.0, 10.0))
"""Heights over widths."""


class AnchorSetting(NamedTuple):
    """The settings that determine the anchors of RetinaNet or of an RPN; fields as in the config."""

    anchor_scale: float
    aspect_ratios: tuple[float, ...]


def anchored(detector: Any) -> Any:
    """The part of a detector whose fields are those of ``AnchorSetting``: itself, its RPN, or None."""
    for part in (detector, getattr(detector, "rpn", None)):
        if all(hasattr(part, field) for field in AnchorSetting._fields):
            return part
    return None


def fit(objects: Objects, detector: Any, num_classes: int) -> Proposal | None:
    """The anchors for a detector whose own leave many objects of a class without one.

    An object has an anchor where one overlaps it by ``positive_iou``. The levels stay.

    Args:
        objects: in pixels of the detector's input; classes with fewer than ten decide nothing.
        detector: an unbound detector on a pyramid.
        num_classes: K.

    Returns:
        The best proposal, with an ``AnchorSetting``; None where no class needs one, none is better than
        what there is, or the detector has no such anchors or finds some for every object.
    """
    part, threshold = anchored(detector), detector.positive_iou
    objects = objects.of_classes_with(FEWEST_OBJECTS)
    if part is None or threshold is None or not len(objects.labels):
        return None
    strides, cells = detector.level_sizes()

    def at(*values: Any) -> Proposal:
        setting = AnchorSetting(*values)
        levels = anchors.retinanet_levels(
            strides,
            scale=setting.anchor_scale,
            octaves=getattr(part, "octaves", 1),
            ratios=setting.aspect_ratios,
            rounded=part.torchvision_anchors,
        )
        return judge(objects, setting, levels, cells, num_classes, threshold)

    current = at(part.anchor_scale, tuple(part.aspect_ratios))
    if np.nanmin(current.recall) >= 1 - MISSED_SHARE:
        return None
    found = (at(*values) for values in itertools.product(SCALES, RATIOS))
    best = max(found, key=lambda proposal: proposal.rank)
    return best if best.rank[:2] > current.rank[:2] else None
