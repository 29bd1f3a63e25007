"""A small two-stage detector for tests, on a backbone that compiles in no time."""

from jdet import build
from jdet.config import get_defaults
from tests.tiny_backbone import TINY

CLASSES = tuple("abcde")


def config(name="faster_rcnn", size=64, rpn=None, head=None, **fields):
    """A whole config; ``rpn`` and ``head`` are fields of these parts."""
    c = get_defaults()
    c.input_size = size
    c.data.max_boxes = 6
    c.resize = build.group("resize", "keep_ratio", short=(size,), long=size)
    few = dict(pre_nms_train=60, pre_nms=40, proposals_train=30, proposals=20, samples=32)
    c.model = build.group(
        "detector",
        name,
        backbone=build.group("backbone", TINY, stages=("c2", "c4")),
        neck=build.group("neck", "fpn", channels=8, extra="pool"),
        rpn=build.group("rpn", **(dict(name="rpn", channels=8) | few | (rpn or {}))),
        box_head=build.group(
            "box_head", **(dict(name="2fc", fc_channels=16, conv_channels=8) | (head or {}))
        ),
        **(dict(samples=16, roi_size=3, finest_scale=8.0, head_norm="none") | fields),
    )
    return c


def make(name="faster_rcnn", **fields):
    """The detector of such a config."""
    return build.detector(config(name, **fields), CLASSES)
