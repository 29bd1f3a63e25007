"""Assignment of objects to default boxes, anchors, points and proposals: one rule per file."""

from jdet.ops.matching import (
    atss,
    fcos,
    hungarian,
    max_iou,
    points,
    simota,
    ssd,
    task_aligned,
)
from jdet.ops.matching.best_objects import BELOW, BETWEEN
from jdet.ops.matching.ignored import inside_ignored
from jdet.ops.matching.places import Places

__all__ = [
    "BELOW",
    "BETWEEN",
    "Places",
    "atss",
    "fcos",
    "hungarian",
    "inside_ignored",
    "max_iou",
    "points",
    "simota",
    "ssd",
    "task_aligned",
]
