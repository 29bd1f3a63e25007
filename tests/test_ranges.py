"""Every number of a config and of a class of jdet has a range, and what lies outside is refused."""

import math
from functools import partial

import pytest

from jdet import build
from jdet.backbones.dsod import DSOD
from jdet.backbones.hybrid import Hybrid
from jdet.backbones.resnet import ResNet
from jdet.backbones.vgg import VGG16
from jdet.build.groups import BOUND, class_of, fields, make
from jdet.build.table import HYBRIDS, TABLE
from jdet.config import get_defaults, ranges, validate
from jdet.config.checks import CLASS_GROUPS, flatten
from jdet.detectors.mask_head import MaskHead
from jdet.detectors.roi_heads import BoxHead
from jdet.detectors.rpn import RPN
from jdet.evaluation.coco_ap import CocoEvaluator
from jdet.evaluation.voc_ap import VocEvaluator
from jdet.necks.bifpn import BiFPN
from jdet.necks.dense_prediction import DensePrediction
from jdet.necks.fpn import FPN
from jdet.necks.ssd_extras import SSDExtras
from jdet.nn.norm import Norm
from jdet.types import ConfigError
from tests.detectors import wild
from tests.own_detector import GridDetector

BY_OPTIMIZER = {f"optimizer.{key}" for key in ("momentum", "beta1", "beta2", "epsilon")}
"""Checked for the optimiser that reads them (``jdet.train.optim``)."""

NESTED = {"min_sizes", "max_sizes", "aspect_ratios", "steps"}
"""Columns of SSD's default boxes, checked level by level together with what the size rule gives."""

BY_SHAPE = {"shapes"}  # of "keep_ratio": pairs


NETWORK = ("detector", "backbone", "neck", "rpn", "box_head", "mask_head")


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def test_every_number_of_a_config_has_a_range():
    defaults = get_defaults().to_dict()
    groups = tuple(f"{key.removeprefix('config.')}." for key in CLASS_GROUPS)
    numbers = {
        key for key, x in flatten(defaults).items() if is_number(x) and not key.startswith(groups)
    }
    assert numbers == set(ranges.RANGES) | BY_OPTIMIZER


@pytest.mark.parametrize("key", ranges.RANGES)
def test_a_config_refuses_what_lies_outside(key):
    allowed = ranges.RANGES[key]
    c = get_defaults()
    *parents, last = key.split(".")
    group = c
    for parent in parents:
        group = group[parent]
    kind = type(group[last])
    for wrong in (allowed.low - 1, allowed.high + 1, *([math.nan] if kind is float else [])):
        group[last] = kind(wrong)
        with pytest.raises(ConfigError, match=f"config.{key}=.*; it must be "):
            validate(c)


CLASSES = [(kind, name) for kind in TABLE for name in TABLE[kind] if kind != "evaluator"]


@pytest.mark.parametrize("kind, name", CLASSES)
def test_every_number_of_a_class_has_a_range(kind, name):
    """In the table; sources and transforms refuse by themselves, and are made without a config too."""
    factory = TABLE[kind][name]
    known = ranges.fields_of(class_of(factory))
    for field, default in fields(factory).items():
        whole = isinstance(default, tuple) and all(map(is_number, default))
        number = (is_number(default) or whole) and field not in {*BOUND, "num_classes"}
        if field in known:
            assert number and ranges.check(known[field], field, default) is None
            with pytest.raises(ConfigError, match=f"here.{field}=nan; it must be"):
                ranges.check_fields(class_of(factory), {field: math.nan}, "here")
        elif number and field not in BY_SHAPE and kind in ("source", "resize", "augment"):
            wrong = (math.nan,) if whole else math.nan
            with pytest.raises(ConfigError, match=field):
                make(kind, {"name": name, field: wrong}, "here")
        elif number and kind in NETWORK and field not in NESTED:
            with pytest.raises(ConfigError, match=field):  # one of a few values
                make(kind, {"name": name, field: -1}, "here")


@pytest.mark.parametrize(
    "kind, name, field, value, expected",
    [
        ("detector", "ssd", "iou_threshold", 0.0, "above 0 and at most 1"),
        ("detector", "ssd", "iou_threshold", 5.0, "above 0 and at most 1"),
        ("detector", "ssd", "nms_iou", -1.0, "in 0 … 1"),
        ("detector", "ssd", "negative_ratio", -1.0, "in 0 … "),
        ("detector", "ssd", "score_threshold", math.nan, "at least 0 and below 1"),
        ("detector", "ssd", "std", (1.0, 0.0, 1.0), "a tuple of numbers above 0"),
        ("detector", "retinanet", "iou_threshold", -1.0, "above 0"),
        ("detector", "retinanet", "pre_nms", 0, "in 1 … "),
        ("detector", "retinanet", "aspect_ratios", (1.0, 0.0), "a tuple of numbers above 0"),
        ("detector", "fcos", "max_detections", 0, "in 1 … "),
        ("detector", "fcos", "focal_gamma", -1.0, "in 0 … 100"),
        ("detector", "fcos", "center_radius", -1.0, "in 0 … "),
        ("detector", "atss", "topk", 0, "in 1 … "),
        ("detector", "cascade_rcnn", "stage_ious", (0.5, 0.0), "a tuple of numbers above 0"),
        ("rpn", "rpn", "samples", 0, "in 1 … "),
        ("box_head", "4conv1fc", "fc_channels", 0, "in 1 … "),
        ("backbone", "resnet", "root", -1, "in 0 … 100"),
        ("backbone", "resnet", "root_channels", (32, 0, 64), "a tuple of numbers in 1 … "),
        ("backbone", "dsod", "first", 0, "in 1 … "),
        ("backbone", "dsod", "bottleneck", -4, "in 1 … "),
        ("backbone", "dsod", "growth", 0, "in 1 … "),
        ("backbone", "dsod", "transition_base", -1, "in 0 … "),
        ("backbone", "dsod", "last_channels", -1, "in 0 … "),
        ("backbone", "dsod", "compression", 0.0, "above 0 and at most 1"),
        ("backbone", "dsod", "compression", 1.5, "above 0 and at most 1"),
        ("backbone", "dsod", "blocks", (6, 0, 8), "a tuple of numbers in 1 … "),
        ("neck", "fpn", "channels", 0, "in 1 … "),
    ],
)
def test_a_class_refuses_what_lies_outside(kind, name, field, value, expected):
    with pytest.raises(ConfigError) as refusal:
        ranges.check_fields(class_of(TABLE[kind][name]), {field: value}, "config.here")
    assert f"config.here.{field}={value!r}; it must be {expected}" in str(refusal.value)


@pytest.mark.parametrize(
    "make, field, wrong",
    [
        (RPN, "iou_threshold", 5.0),
        (RPN, "samples", 0),
        (partial(BoxHead, num_classes=3), "fc_channels", 0),
        (partial(MaskHead, num_classes=3), "convs", -1),
        (partial(GridDetector, num_classes=3, input_size=32), "std", (1.0, 0.0, 1.0)),
        (VGG16, "width", 0.0),
        (ResNet, "root", -1),
        (DSOD, "growth", 0),
        (partial(Hybrid, spec=HYBRIDS["swin_t"][0]), "drop_path", 1.0),
        (partial(DensePrediction, taps=("c4", "c5")), "width", -1.0),
        (partial(FPN, taps=("c3", "c4", "c5")), "channels", 0),
        (partial(BiFPN, taps=("c3", "c4", "c5")), "repeats", 0),
        (partial(SSDExtras, taps=("c4", "c5")), "width", 0.0),
    ],
)
def test_what_is_made_in_python_has_the_ranges_too(make, field, wrong):
    made = make()
    name = type(made).__name__
    for call in (lambda: make(**{field: wrong}), lambda: made.clone(**{field: wrong})):
        with pytest.raises(ConfigError, match=f"^{name}.{field}=.*; it must be "):
            call()


def test_detectors_made_in_python_have_the_ranges_too():
    made = wild.make("ssd")
    for wrong in (dict(iou_threshold=5), dict(nms_iou=-1.0), dict(score_threshold=math.nan)):
        with pytest.raises(ConfigError, match="^SSD.*; it must be "):
            made.clone(**wrong)


def test_a_class_of_a_users_own_has_the_ranges_of_its_base():
    own = type("Own", (build.resolve("detector", "ssd"),), {"__module__": "mine"})
    assert ranges.fields_of(own)["nms_iou"] == ranges.SHARE
    assert not ranges.fields_of(type("SSD", (), {"__module__": "mine"}))


def test_norms_and_evaluators_have_ranges_too():
    c = get_defaults()
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "root_resnet", depth=18),
        neck=build.group("neck", "residual_extras"),
        norm_momentum=1.5,
    )
    with pytest.raises(ConfigError, match="config.model.norm_momentum=1.5; it must be in 0 … 1"):
        build.detector(c, ("a",))
    c.model.norm_momentum, c.model.nms_iou = 0.9, -1.0
    with pytest.raises(ConfigError, match="config.model.nms_iou=-1.0; it must be in 0 … 1"):
        build.detector(c, ("a",))
    with pytest.raises(ConfigError, match="^Norm.momentum=1.5; it must be in 0 … 1"):
        Norm("batch", momentum=1.5)
    with pytest.raises(ConfigError, match="iou_threshold=0; it must be above 0"):
        VocEvaluator(("a",), iou_threshold=0)
    for wrong, message in (
        ((0, 10, 100), "in 1 … "),
        ((1, 100, 10), "three rising"),
        ((5,), "three"),
    ):
        with pytest.raises(ConfigError, match=f"eval.coco.max_detections=.*{message}"):
            CocoEvaluator(("a",), max_detections=wrong)
