"""Direct pre-training: the two phases that the experiments share, whichever detector, and their arms."""

import math

from ml_collections import ConfigDict

from experiments.common import coco, pick
from experiments.common_dense import decay_without_norms, keep_proportions, plain_images
from jdet import build
from jdet.config import parse_arg
from jdet.train import presets
from jdet.types import ConfigError

PX = 88_000
"""Steps of the schedule P1x, whatever the batch: twelve passes over COCO with 16 images a step."""

FINE_TUNES = {"1x": (12, 8, 11), "2x": (24, 16, 22)}
"""Epochs of the fine-tuning, and after which the rate drops."""

FORMS = ("fit", "square", "stitcher")
MODES = ("fixed", "affine", "sync_batch")

DIRECT = dict(side=448, batch=8, gpus=8, p=1, ft="1x", mode="fixed", form="fit", load="")
DIRECT |= dict(length="fixed_iters", ms=False, seed=0, root="data")
"""Arguments of all of them; ``batch`` is that of a device of ``gpus`` in the first phase."""


def direct_settings(arg, **more):
    """Reads the arguments, and ``more`` of their defaults."""
    arg = parse_arg(arg, **DIRECT, **more)
    pick("ft", arg.ft, FINE_TUNES)
    pick("mode", arg.mode, MODES)
    pick("form", arg.form, FORMS)
    if arg.p < 1:
        raise ConfigError(f"p={arg.p} counts schedules of {PX} steps; it must be at least 1")
    return arg


SMALL = dict(arm="direct", batch=16, share=0.5, pre=0, mode="fixed", load="", data=1.0)
SMALL |= dict(lr=0.01, seed=0, mini=True)
"""Arguments of the small ones, which two CPU cores train."""


def small_settings(arg, **more):
    """Reads the arguments of a small one, and ``more`` of their defaults."""
    arg = parse_arg(arg, **SMALL, **more)
    pick("arm", arg.arm, ("direct", "scratch"))
    pick("mode", arg.mode, MODES)
    return arg


def pretrain_input(form, side, long=1333, short=800, divisor=2):
    """The first phase's resize: small parts, with proportions or without, or whole images made small.

    Args:
        form: one of ``FORMS``.
        side: of the input, pixels.
        long: side of the fine-tuning that "stitcher" divides, pixels.
        short: likewise.
        divisor: by which; the paper does not say.
    """
    if form == "stitcher":
        return build.group("resize", "keep_ratio", short=(short // divisor,), long=long // divisor)
    return build.group("resize", "fit_crop", square=form == "square")


def norms_in_backbone(model):
    """A model whose pyramid and heads have no norms, as all of the paper's."""
    model.neck.use_norm = False
    model.norm, model.head_norm = "sync_batch", "none"
    return model


def two_stage_coco(arg, model):
    """The config of a two-stage detector on COCO in two phases.

    Args:
        arg: of ``direct_settings``.
        model: of the detector.
    """
    c = coco(arg.root, arg.seed)
    keep_proportions(c, 800, 1333)
    plain_images(c)
    c.model = norms_in_backbone(model)
    decay_without_norms(c)
    return two_phases(c, arg, lr=0.02)


def two_phases(c, arg, lr, warmup=500):
    """Gives a config the phases of the paper (Table 3 and the released code).

    Args:
        c: config with data, model and images of the fine-tuning; changed in place.
        arg: of ``direct_settings``.
        lr: learning rate of 16 images; other batches scale it.
        warmup: steps of the first phase's.
    """
    c.optimizer.lr, c.optimizer.reference_batch = lr, 16
    c.phases = ("pretrain", "finetune")
    c.phase.pretrain = dict(
        input_size=arg.side,
        resize=pretrain_input(arg.form, arg.side),
        model=dict(norm="sync_batch"),
        # Statistics of the images of one device of the paper's, on any number of devices.
        parallel=dict(bn_group_size=arg.batch),
        train=dict(batch_size=arg.batch * arg.gpus, steps=arg.p * PX, length=arg.length),
        optimizer=dict(schedule="constant", warmup=warmup, warmup_start=0.01),
    )
    epochs, *drops = FINE_TUNES[arg.ft]
    c.phase.finetune = finetune(arg)
    c.phase.finetune.train = dict(batch_size=16, epochs=float(epochs))
    c.phase.finetune.optimizer.update(
        rules=(),  # norms decay again, where they train
        schedule="step",
        boundaries=tuple(drop / epochs for drop in drops),
        warmup=500,
        warmup_start=0.001,
    )
    if arg.ms:
        c.phase.finetune.resize = dict(short=tuple(range(640, 801, 32)))
    return c


def tenth_of_coco(c):
    """A tenth of the images, 60,000 and 30,000 steps, and one drop in the second phase (Table 9).

    The rate of 0.04 is that of the fine-tuning, whose batch it is printed for. Which images and where it
    drops are not printed: here a tenth by name, and after five sixths.
    """
    c.data.share = 0.1
    c.phase.pretrain.train.steps = 60_000
    c.phase.finetune.train = dict(batch_size=16, steps=30_000, epochs=0.0)
    c.phase.finetune.optimizer.update(lr=0.04, boundaries=(5 / 6,), decay=0.02)


def with_swin(c):
    """Swin-T and AdamW in both phases, 4e-4 for 64 images and 1e-4 for 16 (Table 8, the released code).

    Nothing is frozen, layer norms train. The released code trains with float16.
    """
    c.model.backbone = build.group("backbone", "swin_t", kernel_init="swin")
    presets.apply(c.optimizer, "transformer")
    c.optimizer.reference_batch, c.optimizer.rules = 16, ()
    c.precision = "bfloat16"
    del c.phase.finetune.model, c.phase.finetune.optimizer.rules


def finetune(arg):
    """What the second phase loads, and which norms and stages it keeps fixed."""
    group = ConfigDict()
    group.init_from = dict(parts=parts(arg.load))
    group.model = dict(norm=arg.mode, backbone=dict(freeze_at=2))
    group.optimizer = dict(rules=()) if arg.mode == "fixed" else ConfigDict()  # no norm trains
    return group


def parts(names):
    """Parts of the model by their names in an argument, ``backbone+neck``; none: all."""
    return tuple(part for part in names.split("+") if part)


def small_phases(c, arg, steps):
    """Splits a training of whole images into two phases that see as many pixels together.

    Args:
        c: config with data, model, whole images, batch, rate and schedule; changed in place.
        arg: with ``side`` and ``batch`` of the small parts, ``share`` of the pixels that are seen in them,
            ``pre``, steps of that phase whatever the share (0: by it), ``mode`` and ``load``.
        steps: of the whole training, if all of it were of whole images.
    """
    minutes = c.train.budget.minutes
    if minutes and arg.pre:
        raise ConfigError(f"pre={arg.pre} and minutes={minutes:g}: give one of them")
    if not 0 < arg.share < 1:
        raise ConfigError(
            f"share={arg.share:g} of the pixels for small parts must be above 0, below 1"
        )
    whole = math.prod(build.resize(c).largest) * c.train.batch_size
    first = arg.pre or max(round(arg.share * steps * whole / (arg.side**2 * arg.batch)), 1)
    second = max(round((1 - arg.share) * steps), 1)
    c.phases = ("pretrain", "finetune")
    c.phase.pretrain = dict(
        input_size=arg.side,
        resize=build.group("resize", "fit_crop"),
        train=dict(batch_size=arg.batch, steps=first, eval_every=0),
        optimizer=dict(schedule="constant", warmup=min(100, first // 10)),
    )
    if c.augment.get("rotate"):
        c.phase.pretrain.augment = dict(rotate=0.0)  # parts keep their proportions
    c.phase.finetune = finetune(arg)
    c.phase.finetune.train = dict(steps=second, eval_every=0)
    c.phase.finetune.optimizer.warmup = min(c.optimizer.warmup, second // 10)
    if minutes:  # pixels cost about as much in parts as in whole images
        c.phase.pretrain.train.budget = dict(minutes=arg.share * minutes, evaluations=0)
        c.phase.finetune.train.budget = dict(minutes=(1 - arg.share) * minutes, evaluations=0)
    return c


def small_model(name, width=0.375, channels=64, **fields):
    """A dense detector for CPU cores, with norms in its backbone alone, as in the paper.

    Args:
        name: of the detector.
        width: of the ResNet-18.
        channels: of pyramid and towers.
        **fields: further fields of the detector.
    """
    return build.group(
        "detector",
        name,
        backbone=build.group("backbone", "resnet", depth=18, width=width, kernel_init="kaiming"),
        neck=build.group("neck", "fpn", channels=channels, extra="none"),
        head_channels=channels,
        head_depth=1,
        norm="sync_batch",
        head_norm="none",
        taps=("c2", "c3", "c4", "c5"),
        **fields,
    )
