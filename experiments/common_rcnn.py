"""What the experiments with detectors that refine regions share: their models and Sparse R-CNN's recipe."""

from experiments.common import pick
from experiments.common_dense import NORMS, SCHEDULES, coco_run, coco_settings
from jdet import build
from jdet.train import presets
from jdet.types import ConfigError

HEADS = ("2fc", "4conv1fc")

RPN = {"faster_rcnn": "rpn", "mask_rcnn": "rpn"}
RPN |= {"cascade_rcnn": "cascade_rpn", "cascade_mask_rcnn": "cascade_rpn"}
"""Settings of the first stage that MMDetection has for each detector."""

MASKS = tuple(name for name in RPN if "mask" in name)
"""Detectors with masks."""


JITTERED = {f"lsj{epochs}": (epochs, 0.88 * epochs, 0.96 * epochs) for epochs in (100, 200, 400)}
"""Schedules with large-scale jitter: epochs, and after which the rate drops (MMDetection's LSJ recipes)."""

BY_SCHEDULE = dict(size=0, batch=0, lr=0.0, bn=0)
"""Arguments whose 0 stands for what their schedule has."""


def rcnn_settings(arg, **more):
    """Reads the arguments of two-stage detectors on COCO, and ``more`` of their defaults."""
    arg = coco_settings(arg, **BY_SCHEDULE | more)
    jitter = arg.schedule in JITTERED
    arg.size = arg.size or (1024 if jitter else 800)
    arg.batch = arg.batch or (64 if jitter else 16)
    arg.lr = arg.lr or (0.025 if jitter else 0.02)
    arg.bn = arg.bn or (64 if jitter else 16)
    return arg


def rcnn_run(arg, model):
    """The config of a two-stage detector on COCO; ``arg`` of ``rcnn_settings``."""
    c = coco_run(arg, model, SCHEDULES | JITTERED)
    if arg.schedule not in JITTERED:
        return c
    if arg.multiscale or arg.warp:
        raise ConfigError(
            f"schedule={arg.schedule} draws the scales of images that are not warped; drop multiscale and "
            "warp"
        )
    square = ((arg.size, arg.size),)
    c.resize = build.group("resize", "keep_ratio", short=(arg.size,), long=arg.size, shapes=square)
    c.augment = build.group("augment", "lsj")
    c.model.rpn.depth = 2
    c.optimizer.weight_decay = 4e-5
    c.optimizer.warmup_start = 0.067
    return c


def rcnn_model(
    name, depth, norm, head, width=1.0, channels=256, agnostic=False, rpn=(), box_head=(), **fields
):
    """A two-stage detector's model with one kind of norm in backbone, pyramid and heads.

    Those with masks have the published mask head.

    Args:
        name: of the detector.
        depth: of the ResNet.
        norm: of backbone, pyramid and the convolutions of the box head; the RPN has none.
        head: one of ``HEADS``.
        width: of the backbone.
        channels: of pyramid, RPN and convolutions of the box head.
        agnostic: one box for all classes.
        rpn: further fields of the RPN.
        box_head: further fields of the box head.
        **fields: further fields of the detector.
    """
    pick("norm", norm, (*NORMS, "none"))
    pick("head", head, HEADS)
    if "mask" in name:
        fields |= dict(mask_head=build.group("mask_head", "fcn", channels=channels))
    return build.group(
        "detector",
        name,
        backbone=build.group("backbone", "resnet", depth=depth, width=width, kernel_init="kaiming"),
        neck=build.group("neck", "fpn", channels=channels, extra="pool", use_norm=norm != "none"),
        rpn=build.group("rpn", RPN[name], channels=channels, **dict(rpn)),
        box_head=build.group(
            "box_head",
            head,
            conv_channels=channels,
            class_agnostic=agnostic,
            **dict(box_head),
        ),
        norm=norm,
        head_norm=norm,
        **fields,
    )


def sparse_model(depth, norm, width=1.0, channels=256, **fields):
    """Sparse R-CNN with one kind of norm in backbone and pyramid; arguments as of ``rcnn_model``."""
    pick("norm", norm, NORMS)
    return build.group(
        "detector",
        "sparse_rcnn",
        backbone=build.group("backbone", "resnet", depth=depth, width=width, kernel_init="kaiming"),
        neck=build.group("neck", "fpn", channels=channels, extra="none", use_norm=True),
        norm=norm,
        **fields,
    )


def sparse_recipe(c, lr):
    """AdamW with ``lr`` for 16 images, decay 0.05, gradients clipped to a norm of 1; the length stays."""
    warmup = c.optimizer.warmup
    presets.apply(c.optimizer, "transformer")
    c.optimizer.lr, c.optimizer.reference_batch = lr, 16
    c.optimizer.rules = ()
    c.optimizer.clip_norm, c.optimizer.warmup = 1.0, warmup


def with_masks(c):
    """Data with masks, and COCO AP of boxes and masks."""
    c.data.train.keep_masks = c.data.eval.keep_masks = True
    c.eval.metrics = ("coco_bbox_segm",)
    return c


def sized_masks(c, name, norm, cpu, smallest):
    """Sets a detector with masks for an accelerator or for two CPU cores.

    Anchors begin at the power of two below the smallest objects, 8 to 32 pixels at a stride of 4, and RoIs
    move to coarser levels in proportion.

    Args:
        c: the config.
        name: one of ``MASKS``.
        norm: as in ``rcnn_model``.
        cpu: a narrow ResNet-18 with few RoIs.
        smallest: square root of the area of the smallest objects, pixels of the network input.
    """
    scale = next((scale for scale in (8.0, 4.0) if 4 * scale <= smallest), 2.0)
    rpn, box_head = dict(anchor_scale=scale), {}
    size = dict(depth=50, head="4conv1fc", agnostic="cascade" in name)
    if cpu:
        rpn |= dict(pre_nms_train=800, pre_nms=400, proposals_train=400, proposals=400)
        size |= dict(depth=18, width=0.5, channels=64, head="2fc", samples=128)
        box_head = dict(fc_channels=256)
    c.model = rcnn_model(
        name, norm=norm, rpn=rpn, box_head=box_head, finest_scale=7.0 * scale, **size
    )
