"""What the experiments with feature pyramids share: dense models, the recipe on COCO, their images."""

import numpy as np
from absl import logging

from experiments.common import coco, pick
from jdet import build
from jdet.analysis import anchor_search, box_coverage
from jdet.config import parse_arg
from jdet.types import ConfigError

DETECTORS = ("atss", "fcos", "retinanet")

SCHEDULES = {"1x": (12, 8, 11), "20e": (20, 16, 19), "2x": (24, 16, 22), "3x": (36, 28, 34)}
SCHEDULES |= {"6x": (73, 65, 71)}
"""Epochs, and after which the rate drops."""

NORMS = ("group", "sync_batch", "batch")

EXTRA = {
    "retinanet": dict(extra="conv_c5"),
    "fcos": dict(extra="conv_p5", extra_relu=True),
    "atss": dict(extra="conv_p5"),
    "reppoints_v2": dict(extra="conv_c5"),
}
"""Levels above the backbone's, as each detector was published."""


FCOS_PLAIN = dict(
    center_radius=0.0,
    norm_on_bbox=False,
    box_activation="exp",
    box_loss="log_iou",
    centerness_branch="cls",
    head_bias=False,
)
"""FCOS as first published."""


COCO = dict(root="data", schedule="6x", norm="group", depth=50, size=800, batch=16, lr=0.01, bn=16)
COCO |= dict(seed=0, multiscale=False, warp=False)
"""Arguments of all detectors on pyramids on COCO."""


def coco_settings(arg, **more):
    """Reads the arguments of ``COCO``, and ``more`` of them or of their defaults."""
    return parse_arg(arg, **COCO | more)


def coco_recipe(arg, name, **fields):
    """The config of a dense detector on COCO.

    Args:
        arg: of ``coco_settings``.
        name: of the detector.
        **fields: further ones of ``dense_model``.
    """
    pick("norm", arg.norm, NORMS)
    return coco_run(arg, dense_model(name, arg.depth, arg.norm, **fields))


def coco_run(arg, model, schedules=SCHEDULES):
    """The config of a model on COCO; ``arg`` of ``coco_settings``, with one of the schedules."""
    pick("schedule", arg.schedule, schedules)
    pick("norm", arg.norm, NORMS)
    c = coco(arg.root, arg.seed)
    c.input_size = arg.size
    if not arg.warp:
        c.resize = build.group(
            "resize",
            "keep_ratio",
            short=(arg.size * 4 // 5, arg.size) if arg.multiscale else (arg.size,),
            sampling="range",
            long=arg.size * 5 // 3,
        )
    elif arg.multiscale:
        raise ConfigError(
            "multiscale draws the short side of images that are not warped; drop warp"
        )
    plain_images(c)
    c.model = model
    c.parallel.bn_group_size = arg.bn if arg.norm == "sync_batch" else 0
    c.train.batch_size = arg.batch
    epochs, *drops = schedules[arg.schedule]
    c.train.epochs = float(epochs)
    c.train.eval_every = 20_000
    c.optimizer.boundaries = tuple(drop / epochs for drop in drops)
    c.optimizer.lr, c.optimizer.reference_batch = arg.lr, 16
    c.optimizer.warmup = 500
    c.optimizer.warmup_start = 0.1 if arg.schedule == "6x" else 0.001
    decay_without_norms(c)
    return c


def dense_model(name, depth, norm, width=1.0, channels=256, extra="", **fields):
    """A dense detector's model with one kind of norm everywhere.

    Args:
        name: of the detector.
        depth: of the ResNet.
        norm: of backbone, pyramid and towers.
        width: of the backbone.
        channels: of pyramid and towers.
        extra: levels above the backbone's; "": as published.
        **fields: further fields of the detector.
    """
    levels = dict(extra=extra) if extra else EXTRA[name]
    return build.group(
        "detector",
        name,
        backbone=build.group("backbone", "resnet", depth=depth, width=width, kernel_init="kaiming"),
        neck=build.group("neck", "fpn", channels=channels, use_norm=True, **levels),
        head_channels=channels,
        norm=norm,
        head_norm=norm,
        **fields,
    )


def sized_model(name, cpu, fine):
    """A dense detector for an accelerator or for two CPU cores; ``fine``: from stride 4 on."""
    taps = ("c2", "c3", "c4", "c5")[not fine :]
    if not cpu:
        return dense_model(name, 50, "group", taps=taps)
    return dense_model(
        name, 18, "batch", width=0.5, channels=64, extra="conv_p5", head_depth=1, taps=taps
    )


def fit_anchors(c, source):
    """Gives RetinaNet or an RPN the anchors that its objects need, where its own leave many without one.

    RoIs move between levels in proportion to the scale of the anchors.

    Args:
        c: with model and resize; changed in place.
        source: training images.
    """
    group = c.model.rpn if "rpn" in c.model else c.model
    if not all(key in group for key in anchor_search.AnchorSetting._fields):
        return  # no anchors of several shapes
    seen = c.copy_and_resolve_references()
    build.look_at_images(seen, source)
    detector = build.detector(seen, source.class_names)
    resize = build.resize(c)
    objects = box_coverage.sampler(source, resize, tile=build.train_tile(c))(
        keep_ignored=detector.train_ignored
    )
    # A square that every input lies in: anchors beside the image are not the best of any object.
    design = detector.clone(input_size=max(max(shape) for shape in resize.shapes))
    found = anchor_search.fit(objects, design, len(source.class_names))
    if found is None:
        return
    group.anchor_scale, group.aspect_ratios = found.setting
    if "finest_scale" in c.model:
        c.model.finest_scale = 7.0 * group.anchor_scale
    logging.info(
        "Anchors fitted to the data: anchor_scale=%g, aspect_ratios=%s; %.1f %% of the objects of a class "
        "have one in the mean, %.1f %% of the worst",
        *found.setting,
        100 * np.nanmean(found.recall),
        100 * np.nanmin(found.recall),
    )


def keep_proportions(c, short, long):
    """Images by their short side, the long one at most ``long``."""
    c.input_size = short
    c.resize = build.group("resize", "keep_ratio", short=(short,), long=long)


def plain_images(c):
    """Images resized and mirrored, nothing else."""
    c.augment.photometric = 0.0
    c.augment.expand = 0.0
    c.augment.crop = False
    c.augment.interpolation = "linear"


def decay_without_norms(c):
    """Decay 1e-4 on weights and biases, none on norms; biases learn at the rate of all."""
    c.optimizer.weight_decay = 1e-4
    c.optimizer.decay_mask = "all"
    c.optimizer.bias_lr = 1.0
    c.optimizer.rules = ((".*norm[^/]*/(scale|bias)", 1.0, 0.0),)
