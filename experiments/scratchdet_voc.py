"""ScratchDet300 on PASCAL VOC: can a detector trained from scratch beat a fine-tuned one?

    python data/get_voc.py --root data
    python -m jdet.main --config=experiments/scratchdet_voc.py --workdir=runs/scratchdet_voc
    python -m jdet.main --config=experiments/scratchdet_voc.py:train=07++12 --workdir=runs/scratchdet_voc12

Root-ResNet-34, residual extras, BatchNorm in backbone and head, 07+12 trainval, VOC07 test (recipe of
sec. 4: batch 128, lr 0.05, drops at 45k, 75k and 95k of 100k steps, momentum 0.9, weight decay 5e-4, no
warm-up). The paper normalises over 16 images per device; with 8 devices the default does the same.

    backbone=root_resnet34 | root_resnet18 | resnet18 | resnet18a | resnet18b | vgg16
    release=caffe | mmdetection  what was released instead of what was published: pre-activation blocks
                                 and predictions from the branches, 8892 boxes; or 8764 boxes
    norm=batch head_norm=batch   each none, batch, sync_batch, group, frozen_batch
    gn       GroupNorm in backbone and head, batch 16, lr 0.03: the author's advice for one small device
    train=07+12  test=07test  root=data  lr=0.05  batch=128  seed=0
    tta=voc  multi-scale testing (ScratchDet300+) after training, or with --mode=evaluate

VOC12's test boxes are on a server; after train=07++12 the mAP on VOC07 test is one on training images.

Source: Zhu et al. 2019, Table 3
Paper: VOC07 mAP 80.4 (78.5 with root_resnet18), tta=voc 84.1; VOC12 test 78.5 with train=07++12, 83.6
    with tta=voc
Ours: not run by us
Cost: about 773 epochs of 16,551 images, 33.3 GMAC an image
"""

from jdet import build
from jdet.config import get_defaults, nearest, parse_arg
from jdet.types import ConfigError

BACKBONES = {
    "root_resnet34": dict(name="root_resnet", depth=34),
    "root_resnet18": dict(name="root_resnet", depth=18),
    "resnet18": dict(name="resnet", depth=18),
    "resnet18a": dict(name="resnet", depth=18, pool=0),
    "resnet18b": dict(name="resnet", depth=18, stem_stride=1),
    "vgg16": dict(name="vgg16"),
}
RELEASED = {"caffe": ("root_resnet34", "root_resnet18"), "mmdetection": ("root_resnet34",)}
MODEL = dict(backbone="root_resnet34", release="", norm="batch", head_norm="batch", gn=False)


def get_config(arg=""):
    arg = parse_arg(
        arg, root="data", train="07+12", test="07test", **MODEL, lr=0.0, batch=0, seed=0, tta="none"
    )
    c = voc(arg.root, arg.train, arg.test, arg.seed)
    c.data.workers = 2
    c.model = scratchdet(arg.backbone, arg.release, **norms(arg))
    c.train.steps = 100_000
    c.train.eval_every = 10_000
    c.optimizer.boundaries = (0.45, 0.75, 0.95)
    batch_and_rate(c, arg)
    c.eval.tta.preset = arg.tta
    return c


def voc(root, train, test, seed):
    """Defaults with a seed and VOC, or any folder of VOC shape, as data."""
    c = get_defaults()
    c.seed = seed
    c.input_size = 300
    c.data.root = root
    c.data.train = build.group("source", "voc", root=c.data.get_ref("root"), splits=train)
    c.data.eval = build.group("source", "voc", root=c.data.get_ref("root"), splits=test)
    return c


def norms(arg):
    """Norms of the detector."""
    if not arg.gn:
        return dict(norm=arg.norm, head_norm=arg.head_norm)
    if (arg.norm, arg.head_norm) != (MODEL["norm"], MODEL["head_norm"]):
        raise ConfigError("gn names both norms; leave out norm= and head_norm=, or gn")
    return dict(norm="group", head_norm="group")


def batch_and_rate(c, arg):
    """``lr`` is for a batch of 128, others scale linearly; with ``gn`` it is what it is."""
    c.train.batch_size = arg.batch or (16 if arg.gn else 128)
    c.optimizer.lr = arg.lr or (0.03 if arg.gn else 0.05)
    c.optimizer.reference_batch = 0 if arg.gn else 128


def scratchdet(backbone, release="", **values):
    """ScratchDet's model: residual extras above Root-ResNet-34, SSD's extras above all others.

    Args:
        backbone: one of ``BACKBONES``.
        release: "caffe" or "mmdetection", see above.
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


def pick(key, value, allowed):
    """Refuses a value of an argument that is not one of ``allowed``."""
    if value not in allowed:
        names = [str(name) or "(empty)" for name in allowed]
        raise ConfigError(
            f"{key}={value} does not exist{nearest(str(value), names)}; there are {', '.join(names)}"
        )


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
