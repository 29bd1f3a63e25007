"""RetinaNet on COCO from random weights: does a dense detector need a pre-trained backbone?

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/retinanet_coco.py --workdir=runs/retinanet_coco

ResNet-50, pyramid P3 to P7 and both towers, all with norms, nothing frozen. Recipe of the from-scratch
runs of MMDetection's zoo (`6x`: 73 epochs, drops after 65 and 71, warm-up of 500 steps from a tenth, decay
1e-4, none on norms) at RetinaNet's rate of 0.01 for 16 images; other batches scale it.

Images keep their proportions: `size` pixels the short side, five thirds of that the long one at most, in
inputs of three shapes.

    schedule=6x | 3x | 2x | 1x   36, 24 and 12 epochs, with the usual drops, warm-up from a thousandth
    norm=group                   sync_batch: statistics over bn=16 images; batch: those of a device
    multiscale                   the short side drawn from 0.8 of `size` to `size` in training
    warp                         images warped to squares of `size` pixels instead
    depth=50  size=800  batch=16  lr=0.01  bn=16  seed=0  root=data

Source: Lin et al. 2017b; schedule as He et al. 2019, "Rethinking ImageNet Pre-training"
Paper: none from scratch at this setting; ImageNet-initialised, MMDetection: COCO val AP 36.5 (1x), 37.4
    (2x)
Ours: not run by us
Cost: 73 epochs of 118,287 images, 239 GMAC an image of 800×1280
"""

from experiments.scratchdet_coco import coco
from experiments.scratchdet_voc import pick
from jdet import build
from jdet.config import parse_arg
from jdet.types import ConfigError

SCHEDULES = {"1x": (12, 8, 11), "2x": (24, 16, 22), "3x": (36, 28, 34), "6x": (73, 65, 71)}
"""Epochs, and after which the rate drops."""

NORMS = ("group", "sync_batch", "batch")


def get_config(arg=""):
    return recipe(settings(arg), "retinanet")


def settings(arg, **more):
    """The arguments of all dense detectors on COCO, and ``more`` of their defaults."""
    return parse_arg(
        arg,
        root="data",
        schedule="6x",
        norm="group",
        depth=50,
        size=800,
        batch=16,
        lr=0.01,
        bn=16,
        seed=0,
        multiscale=False,
        warp=False,
        **more,
    )


def recipe(arg, name, **fields):
    """The config of a dense detector on COCO.

    Args:
        arg: of ``settings``.
        name: of the detector.
        **fields: further ones of ``dense_model``.
    """
    pick("schedule", arg.schedule, SCHEDULES)
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
    c.model = dense_model(name, arg.depth, arg.norm, **fields)
    c.parallel.bn_group_size = arg.bn if arg.norm == "sync_batch" else 0
    c.train.batch_size = arg.batch
    epochs, *drops = SCHEDULES[arg.schedule]
    c.train.epochs = float(epochs)
    c.train.eval_every = 20_000
    c.optimizer.boundaries = tuple(drop / epochs for drop in drops)
    c.optimizer.lr, c.optimizer.reference_batch = arg.lr, 16
    c.optimizer.warmup = 500
    c.optimizer.warmup_start = 0.1 if arg.schedule == "6x" else 0.001
    decay_without_norms(c)
    return c


EXTRA = {
    "retinanet": dict(extra="conv_c5"),
    "fcos": dict(extra="conv_p5", extra_relu=True),
    "atss": dict(extra="conv_p5"),
}
"""Levels above the backbone's, as each detector was published."""


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
