"""Assignment of objects to default boxes, anchors and points: one rule per file."""

from jdet.ops.matching import atss, fcos, max_iou, ssd
from jdet.ops.matching.best_objects import BELOW, BETWEEN
from jdet.ops.matching.ignored import inside_ignored

__all__ = ["BELOW", "BETWEEN", "atss", "fcos", "inside_ignored", "max_iou", "ssd"]
