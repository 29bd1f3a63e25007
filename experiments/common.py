"""What several experiments share: data sets, ScratchDet's models, recipes and sizes for small machines.

The models of dense detectors stand in ``common_dense.py``, those of DSOD in ``common_dsod.py``; what is for
one's own images in ``common_own.py``.
"""

from jdet import build
from jdet.config import get_defaults, nearest
from jdet.train.schedule import POLICIES
from jdet.types import ConfigError

BACKBONES = {
    "root_resnet34": dict(name="root_resnet", depth=34),
    "root_resnet18": dict(name="root_resnet", depth=18),
    "resnet18": dict(name="resnet", depth=18),
    "resnet18a": dict(name="resnet", depth=18, pool=0),
    "resnet18b": dict(name="resnet", depth=18, stem_stride=1),
    "vgg16": dict(name="vgg16"),
}
"""Backbones of ScratchDet's paper."""

RELEASED = {"caffe": ("root_resnet34", "root_resnet18"), "mmdetection": ("root_resnet34",)}
"""Backbones of each release of ScratchDet."""

STEMS = {"s2_7x7": dict(root=0, stem_stride=2, pool=3)}
STEMS |= {f"s2_root{n}": dict(root=n, stem_stride=2, pool=2) for n in (1, 2, 3)}
STEMS |= {"s1_7x7": dict(root=0, stem_stride=1, pool=3)}
STEMS |= {f"s1_root{n}": dict(root=n, stem_stride=1, pool=2) for n in (1, 2, 3, 4, 5)}
STEMS |= {"s2_nopool": dict(root=0, stem_stride=2, pool=0)}
"""First layers of Root-ResNet by stride and convolutions (ScratchDet, Table 2 and Fig. 3)."""

SCRATCHDET = dict(backbone="root_resnet34", release="", norm="batch", head_norm="batch", gn=False)
"""Arguments that choose ScratchDet's model."""

MEGDET = dict(
    batch=128,
    bn=0,
    norm="both",
    warmup=True,
    policy="normal",
    epochs=0.0,
    steps=0,
    accumulation=1,
    lr=0.0,
    seed=0,
)
"""Arguments of MegDet's recipe."""


def pick(key, value, allowed):
    """Refuses a value of an argument that is not one of ``allowed``."""
    if value not in allowed:
        names = [str(name) or "(empty)" for name in allowed]
        raise ConfigError(
            f"{key}={value} does not exist{nearest(str(value), names)}; there are {', '.join(names)}"
        )


# ------------------------------------------------------------------ data


def voc(root, train, test, seed):
    """Defaults with a seed and VOC, or any folder of VOC shape, as data."""
    c = get_defaults()
    c.seed = seed
    c.input_size = 300
    c.data.root = root
    c.data.train = build.group("source", "voc", root=c.data.get_ref("root"), splits=train)
    c.data.eval = build.group("source", "voc", root=c.data.get_ref("root"), splits=test)
    return c


def voc_or_folder(arg):
    """VOC 07+12 and VOC07 test; with ``mini`` trainval and test of one folder of VOC shape.

    Args:
        arg: with ``root``, ``seed``, ``mini``, and ``train`` and ``test`` for other splits.
    """
    train, test = ("trainval", "test") if arg.mini else ("07+12", "07test")
    c = voc(arg.root, arg.train or train, arg.test or test, arg.seed)
    c.data.workers = 2
    return c


def coco(root, seed, train="", test=""):
    """Defaults with a seed and COCO as data: train2017 and val2017, or other splits."""
    c = get_defaults()
    c.seed = seed
    c.data.root = root
    for role, split in (("train", train or "train2017"), ("eval", test or "val2017")):
        file = c.data.get_ref("root") + f"/coco/annotations/instances_{split}.json"
        c.data[role] = build.group("source", "coco", annotation_file=file, keep_masks=False)
    c.data.max_boxes = 100
    c.data.workers = 2
    c.eval.metrics = ("coco",)
    return c


# ------------------------------------------------------------------ models


def scratchdet(backbone, release="", **values):
    """ScratchDet's model: residual extras above Root-ResNet-34, SSD's extras above all others.

    Args:
        backbone: one of ``BACKBONES``.
        release: "caffe" or "mmdetection": what was released instead of what was published.
        **values: further fields of the detector.
    """
    pick("backbone", backbone, BACKBONES)
    pick("release", release, ("", *RELEASED))
    if release and backbone not in RELEASED[release]:
        raise ConfigError(
            f"release={release} has no backbone={backbone}; it has {', '.join(RELEASED[release])}"
        )
    body, neck = dict(BACKBONES[backbone]), dict(name="ssd_extras")
    if backbone == "root_resnet34":
        neck = dict(name="residual_extras", release=release)
    if release == "caffe":
        branches = dict(block="preact", tap="branch")
        body |= dict(**branches, norm_first=backbone == "root_resnet18")
        neck |= dict(norm_first=True) if neck["name"] == "ssd_extras" else branches
    return build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", **body),
        neck=build.group("neck", **neck),
        **values,
    )


def norms(arg):
    """Norms of ScratchDet's model."""
    if not arg.gn:
        return dict(norm=arg.norm, head_norm=arg.head_norm)
    if (arg.norm, arg.head_norm) != (SCRATCHDET["norm"], SCRATCHDET["head_norm"]):
        raise ConfigError("gn names both norms; leave out norm= and head_norm=, or gn")
    return dict(norm="group", head_norm="group")


# ------------------------------------------------------------------ recipes


def batch_and_rate(c, arg):
    """``lr`` is for a batch of 128, others scale linearly; with ``gn`` it is what it is."""
    c.train.batch_size = arg.batch or (16 if arg.gn else 128)
    c.optimizer.lr = arg.lr or (0.03 if arg.gn else 0.05)
    c.optimizer.reference_batch = 0 if arg.gn else 128


def megdet(c, arg, lr, reference, stretch):
    """MegDet's recipe; ``lr`` is for ``reference`` images, and the policies' epochs are stretched."""
    pick("norm", arg.norm, ("both", "none"))
    pick("policy", arg.policy, POLICIES)
    if arg.epochs and arg.steps:
        raise ConfigError(f"epochs={arg.epochs:g} and steps={arg.steps}: give one of them")
    c.train.batch_size, c.train.accumulation = arg.batch, arg.accumulation
    c.train.steps = arg.steps
    c.train.epochs = 0.0 if arg.steps else arg.epochs or stretch * POLICIES[arg.policy].epochs
    c.optimizer.schedule = arg.policy
    c.optimizer.lr, c.optimizer.reference_batch = arg.lr or lr, reference
    if arg.warmup:
        c.optimizer.warmup, c.optimizer.warmup_epochs = 500, 1.0
        if arg.steps:
            c.optimizer.warmup = min(500, arg.steps // 10)
        c.optimizer.warmup_lr = c.optimizer.lr * 16 / reference
    c.model.norm = c.model.head_norm = "none" if arg.norm == "none" else "sync_batch"
    if arg.norm == "both":
        c.parallel.bn_group_size = arg.bn or min(32, arg.batch)
    elif arg.bn:
        raise ConfigError(f"bn={arg.bn} is for norm=both; there is no norm")
    return c


def boards(c):
    """Augmentation for binary scans of one scale: the eight orientations."""
    c.data.max_boxes = 16
    c.augment.photometric = 0.0
    c.augment.expand = 0.0
    c.augment.crop = False
    c.augment.flip_vertical = 0.5
    c.augment.rotate = 0.5
    c.augment.interpolation = "linear"


def boards_recipe(c, arg):
    """Images of circuit boards and optimisation, whichever detector; ``lr`` is for 16 images."""
    boards(c)
    c.optimizer.lr = arg.lr
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup = 100 if not arg.steps else min(100, arg.steps // 10)
    c.train.batch_size = c.optimizer.reference_batch = 16
    c.eval.metrics = ("voc", "coco")


def boards_on_cpu(c, arg):
    """Twelve epochs in small steps: of 8 images they teach far more than half as many of 16."""
    c.train.batch_size = 8
    c.train.steps = arg.steps or 1500
    c.train.ema = 0.995
    c.parallel.cpu_devices = 2


def miniature(c, steps, width, batch=0):
    """Shrinks an experiment to what CPU cores can train; ``lr`` is then for a batch of 16.

    The smallest boxes fit 9-pixel objects (the platelets of BCCD), images are neither zoomed out nor
    cropped below 0.6, which would leave 2 pixels of them; the schedule drops at the same shares of the run.
    Which stages are levels is left to the experiment.
    """
    c.input_size = 128
    c.model.backbone.width = c.model.neck.width = width
    c.model.first_ratio, c.model.min_ratio = 0.08, 0.16
    c.augment.expand = 0.0
    c.augment.crop_scale = 0.6
    c.optimizer.reference_batch = 16
    c.train.batch_size = batch or 16
    c.train.steps = steps or 600
    c.train.eval_every = max(c.train.steps // 4, 1)
    c.train.log_every = 10
    c.data.workers = 0
    return c
