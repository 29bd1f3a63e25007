"""The one table of ranges: what every number of a config, and every number of a class, can be."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from jdet.types import require


class Range(NamedTuple):
    """Numbers from ``low`` to ``high``; NaN and infinity lie in none.

    Attributes:
        low: the smallest.
        high: the largest.
        above: ``low`` itself does not belong to it.
        below: ``high`` itself does not belong to it.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False

    def __contains__(self, value: Any) -> bool:
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return not (self.above and value == self.low) and not (self.below and value == self.high)

    def __str__(self) -> str:
        if not (self.above or self.below):
            return f"in {self.low} … {self.high}"
        low, high = "above" if self.above else "at least", "below" if self.below else "at most"
        return f"{low} {self.low} and {high} {self.high}"


MANY, LARGE = 10**9, 10**6
"""Limits of counts and of sizes that nothing else limits."""

COUNT, SHARE = Range(1, MANY), Range(0, 1)
SIZE, WEIGHT = Range(0, LARGE, above=True), Range(0, LARGE)
OVERLAP = Range(0, 1, above=True)
"""An overlap from which something counts: at 0 all would that touch nothing."""

RANGES: dict[str, Range] = {
    "seed": Range(0, 2**32 - 1),
    "input_size": Range(16, 4096),
    "data.holdout": Range(0, 10_000),
    "data.share": Range(0, 1, above=True),
    "data.repeat_threshold": Range(0, 1),
    "data.tile.side": Range(0, LARGE),
    "data.tile.share": Range(0, 1),
    "data.tile.objects": Range(0, 1),
    "data.mix.mosaic": Range(0, 1),
    "data.mix.mixup": Range(0, 1),
    "data.mix.copy_paste": Range(0, 1),
    "data.mix.low": Range(0.5, 10),
    "data.mix.high": Range(0.5, 10),
    "data.mix.share": Range(0, 1),
    "data.mix.side": Range(0, 4096),
    "data.mix.stop": Range(0, 10**9),
    "data.min_usable": Range(0, 1),
    "data.image.found.channels": Range(0, 10_000),
    "data.image.found.least_span": Range(0, 1e12),
    "data.max_boxes": Range(1, 10_000),
    "data.mask_size": Range(7, 1024),
    "data.workers": Range(0, 1024),
    "data.threads": Range(0, 1024),
    "data.prefetch": Range(1, 1024),
    "calibration.iterations": Range(0, 100),
    "calibration.alpha": Range(0, 0.5),
    "train.batch_size": Range(1, 10**6),
    "train.steps": Range(0, 10**9),
    "train.epochs": Range(0, 1e6),
    "train.budget.minutes": Range(0, 10**6),
    "train.budget.evaluations": Range(0, 10**6),
    "train.budget.step_seconds": Range(0, 10**6),
    "train.class_weights.beta": Range(0, 1, below=True),
    "train.eval_every": Range(0, 10**9),
    "train.save_every": Range(0, 10**9),
    "train.accumulation": Range(1, 10**4),
    "train.ema": Range(0, 0.999999),
    "train.log_every": Range(1, 10**9),
    "train.keep": Range(1, 10**4),
    "train.saturation.patience": Range(0, 10**6),
    "train.saturation.minimum": Range(0, 10**6),
    "train.saturation.delta": Range(0, 1e9),
    "train.saturation.reductions": Range(0, 100),
    "train.saturation.factor": Range(0, 1),
    "train.early_stop.patience": Range(0, 10**6),
    "train.early_stop.minimum": Range(0, 10**6),
    "train.early_stop.min_delta": Range(0, 1e9),
    "train.learning.images": Range(0, 10**4),
    "optimizer.lr": Range(1e-12, 1e6),
    "optimizer.reference_batch": Range(0, 10**9),
    "optimizer.bias_lr": Range(0, 1e6),
    "optimizer.weight_decay": Range(0, 1),
    "optimizer.decay": Range(1e-9, 1),
    "optimizer.end_factor": Range(0, 1),
    "optimizer.power": Range(1e-3, 100),
    "optimizer.hold": Range(0, 10**9),
    "optimizer.warmup": Range(0, 10**9),
    "optimizer.warmup_start": Range(0, 1),
    "optimizer.warmup_epochs": Range(0, 10**6),
    "optimizer.warmup_lr": Range(0, 1e6),
    "optimizer.clip_norm": Range(0, 1e9),
    "eval.batch_size": Range(1, 10**6),
    "eval.coco.recall_levels": Range(2, 10_001),
    "eval.images": Range(0, 10**4),
    "eval.score_drawn": Range(0, 1),
    "eval.max_images": Range(0, 10**9),
    "eval.precise_bn": Range(0, 10**6),
    "eval.tta.iou_threshold": Range(0, 1),
    "eval.tta.pixel_offset": Range(0, 1),
    "eval.tta.score_threshold": Range(0, 1),
    "eval.tta.max_detections": Range(0, 10**5),
    "eval.tile.side": Range(0, LARGE),
    "eval.tile.overlap": Range(0, LARGE),
    "eval.tile.iou_threshold": Range(0, 1),
    "eval.tile.max_detections": Range(0, 10**6),
    "landscape.every": Range(0, 10**9),
    "landscape.depth": Range(0, 16),
    "landscape.probe_every": Range(0, 10**9),
    "parallel.devices": Range(0, 10**6),
    "parallel.cpu_devices": Range(1, 64),
    "parallel.bn_group_size": Range(0, 10**6),
}
"""By key of a whole config; classes have their own below."""

_AFTER = {
    "score_threshold": Range(0, 1, below=True),
    "nms_iou": SHARE,
    "pre_nms": COUNT,
    "max_detections": COUNT,
    "max_per_class": Range(0, MANY),
    "min_side": WEIGHT,
}

FIELDS: dict[str, dict[str, Range]] = {
    "Detector": {"mean": Range(-LARGE, LARGE), "std": SIZE},
    "SSD": {
        **_AFTER,
        "l2norm_levels": Range(-1, 100),
        "first_ratio": Range(0, 10, above=True),
        "min_ratio": Range(0, 10, above=True),
        "max_ratio": Range(0, 10, above=True),
        "first_centres": Range(-LARGE, LARGE),
        "head_kernels": Range(1, 99),
        "iou_threshold": OVERLAP,
        "negative_ratio": WEIGHT,
        "min_negatives": Range(0, MANY),
        "ignore_iof": SHARE,
        "loc_weight": WEIGHT,
    },
    "ClassNMSDetector": {**_AFTER, "soft_sigma": SIZE},
    "DenseDetector": {
        "ignore_iof": SHARE,
        "head_depth": Range(0, 100),
        "head_channels": COUNT,
        "prior": Range(0, 1, above=True, below=True),
        "focal_alpha": Range(-LARGE, 1),
        "focal_gamma": Range(0, 100),
        "box_weight": WEIGHT,
    },
    "RPN": {
        "channels": COUNT,
        "depth": Range(0, 100),
        "anchor_scale": SIZE,
        "anchor_sides": SIZE,
        "aspect_ratios": SIZE,
        "border": Range(-LARGE, LARGE),
        "iou_threshold": OVERLAP,
        "negative_iou": SHARE,
        "min_pos_iou": SHARE,
        "samples": COUNT,
        "positive_share": Range(0, 1, above=True),
        "smooth_l1_beta": WEIGHT,
        "box_weight": WEIGHT,
        "pre_nms_train": COUNT,
        "pre_nms": COUNT,
        "proposals_train": COUNT,
        "proposals": COUNT,
        "nms_iou": SHARE,
        "min_side": WEIGHT,
    },
    "BoxHead": {
        "convs": Range(0, 100),
        "conv_channels": COUNT,
        "fcs": Range(0, 100),
        "fc_channels": COUNT,
    },
    "MaskHead": {"convs": Range(0, 100), "channels": COUNT},
    "MaskRCNN": {"mask_size": Range(1, 1000), "mask_weight": WEIGHT},
    "RCNN": {
        "stage_ious": OVERLAP,
        "stage_weights": WEIGHT,
        "center_stds": SIZE,
        "size_stds": SIZE,
        "samples": COUNT,
        "positive_share": Range(0, 1, above=True),
        "smooth_l1_beta": WEIGHT,
        "box_weight": WEIGHT,
        "semantic_weight": WEIGHT,
        "semantic_convs": Range(0, 100),
        "semantic_channels": COUNT,
    },
    "RoIDetector": {
        "roi_size": Range(1, 100),
        "roi_sampling": Range(0, 100),
        "finest_scale": SIZE,
        "context": Range(0, 10),
    },
    "SemanticHead": {"convs": Range(0, 100), "channels": COUNT},
    "SparseRCNN": {
        "proposals": Range(1, 100_000),
        "stages": Range(1, 100),
        "attention_heads": COUNT,
        "dynamic_channels": COUNT,
        "hidden": COUNT,
        "cls_layers": Range(0, 100),
        "box_layers": Range(0, 100),
        "prior": Range(0, 1, above=True, below=True),
        "center_std": SIZE,
        "size_std": SIZE,
        "roi_size": Range(1, 100),
        "roi_sampling": Range(0, 100),
        "finest_scale": SIZE,
        "cls_weight": WEIGHT,
        "l1_weight": WEIGHT,
        "giou_weight": WEIGHT,
        "focal_alpha": Range(-LARGE, 1),
        "focal_gamma": Range(0, 100),
        "score_threshold": Range(0, 1, below=True),
        "max_detections": COUNT,
    },
    "RetinaNet": {
        "anchor_scale": SIZE,
        "octaves": Range(1, 100),
        "aspect_ratios": SIZE,
        "iou_threshold": OVERLAP,
        "negative_iou": SHARE,
        "min_pos_iou": SHARE,
        "smooth_l1_beta": WEIGHT,
    },
    "CenternessDetector": {
        "centerness_weight": WEIGHT,
        "align_topk": COUNT,
        "align_alpha": Range(0, 100),
        "align_beta": Range(0, 100, above=True),
        "ota_topk": COUNT,
        "ota_iou_weight": WEIGHT,
        "ota_radius": SIZE,
        "quality_beta": Range(1, 100),
        "varifocal_alpha": WEIGHT,
        "varifocal_gamma": Range(1, 100),
    },
    "FCOS": {"regress_bounds": SIZE, "center_radius": WEIGHT},
    "ATSS": {"anchor_scale": SIZE, "topk": COUNT},
    "RepPointsV2": {
        "head_depth": Range(1, 100),
        "corner_channels": COUNT,
        "points_gradient": SHARE,
        "quality_beta": Range(1, 100),
        "smooth_l1_beta": WEIGHT,
        "giou_extent": WEIGHT,
        "initial_weight": WEIGHT,
        "heat_weight": WEIGHT,
        "corner_weight": WEIGHT,
        "semantic_weight": WEIGHT,
        "topk": COUNT,
    },
    "Norm": {"momentum": SHARE, "epsilon": Range(0, 1)},
    "VGG16": {"width": SIZE},
    "ResNet": {
        "width": SIZE,
        "root": Range(0, 100),
        "root_channels": COUNT,
        "dilation": Range(1, 100),
        "freeze_at": Range(0, 5),
    },
    "DSOD": {
        "width": SIZE,
        "first": COUNT,
        "bottleneck": COUNT,
        "growth": COUNT,
        "transition_base": Range(0, MANY),
        "last_channels": Range(0, MANY),
        "compression": Range(0, 1, above=True),
        "blocks": COUNT,
    },
    "Hybrid": {
        "channels": COUNT,
        "c_width_mult": SIZE,
        "head_channels": COUNT,
        "window": Range(1, 1000),
        "mlp_ratio": SIZE,
        "drop_path": Range(0, 1, below=True),
    },
    "Extras": {"width": SIZE},
    "SSDExtras": {"channels": COUNT},
    "DensePrediction": {"width": SIZE},
    "FPN": {"width": SIZE, "channels": COUNT, "lateral_kernel": Range(1, 99)},
    "BiFPN": {
        "width": SIZE,
        "channels": COUNT,
        "extra": Range(0, 10),
        "repeats": Range(1, 100),
    },
    "DenseHalf": {"width": SIZE, "channels": Range(2, MANY), "extra": Range(0, 10)},
    "IntensityAugment": {
        "gain": SHARE,
        "offset": SHARE,
        "gamma": Range(0, 3),
        "noise": SHARE,
        "drop": SHARE,
        "saturation": SHARE,
        "hue": Range(0, 180),
    },
    "DETRAugment": {"crop": SHARE, "flip": SHARE, **dict.fromkeys(("short", "low", "high"), COUNT)},
    "LargeScaleJitter": {"flip": SHARE, **dict.fromkeys(("low", "high"), Range(0.05, 10))},
    "VocEvaluator": {"iou_threshold": OVERLAP, "pixel_offset": SHARE},
    "CocoEvaluator": {"max_detections": COUNT, "recall_levels": RANGES["eval.coco.recall_levels"]},
}
"""By name of a class and field, those of a tuple included; a subclass has the ranges of its bases too."""


def check(allowed: Range, key: str, value: Any) -> None:
    """Refuses a number, or a tuple with one, that does not lie in a range.

    Raises:
        ConfigError: names key, value and range.
    """
    if isinstance(value, tuple | list):
        fine = all(_fits(allowed, one) for one in value)
        require(fine, key, value, f"a tuple of numbers {allowed}")
    else:
        require(value in allowed, key, value, str(allowed))


def _fits(allowed: Range, value: Any) -> bool:
    """Whether a number, or every number of a nested tuple, lies in a range."""
    if isinstance(value, tuple | list):
        return all(_fits(allowed, one) for one in value)
    return value in allowed


def check_fields(cls: Any, values: Mapping[str, Any], where: str) -> None:
    """Refuses numbers that a class of jdet, or one derived from it, cannot have.

    Args:
        cls: the class.
        values: of its fields.
        where: key of its group in the config, before the name of the field.

    Raises:
        ConfigError: names key, value and range.
    """
    known = fields_of(cls)
    for field, value in values.items():
        if field in known:
            check(known[field], f"{where}.{field}", value)


def check_made(made: Any) -> None:
    """Refuses numbers that an object cannot have, however it was made.

    Raises:
        ConfigError: names class, field, value and range.
    """
    cls = type(made)
    check_fields(cls, {name: getattr(made, name) for name in fields_of(cls)}, cls.__name__)


@functools.cache
def fields_of(cls: Any) -> dict[str, Range]:
    """The ranges of a class's fields, those of its bases included."""
    known: dict[str, Range] = {}
    for base in reversed(getattr(cls, "__mro__", ())):
        if base.__module__.startswith("jdet."):
            known |= FIELDS.get(base.__name__, {})
    return known
