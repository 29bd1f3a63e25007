"""DSOD300 on PASCAL VOC: do dense blocks, and dense prediction layers, let a detector start from nothing?

    python data/get_voc.py --root data
    python -m jdet.main --config=experiments/dsod_voc.py --workdir=runs/dsod_voc
    python -m jdet.main --config=experiments/dsod_voc.py:head=plain --workdir=runs/dsod_voc_plain
    python -m jdet.main --config=experiments/dsod_voc.py:mini,root=BCCD --workdir=runs/dsod_mini

DS/64-192-48-1, L2 normalisation of all levels, norms in backbone and head; batch 128, lr 0.1 divided by
ten every 20k of 100k steps, momentum 0.9, weight decay 5e-4. ``train=07++12`` takes the VOC12 schedule
(drops at 30k, 50k, 70k, 90k of 110k); the answers to VOC12 test are on a server, and VOC07 test is then
part of the training set.

    head=dense | plain    size=300 | 512  lr=0.1  batch=128  steps=100000  seed=0
    last_scale=2x2 | 1x1  last map of the released code (8744 boxes) or of the paper's figure (8732)
    bn_group=4            images that share statistics, as the authors had; 0: those of a device
    coco=RUN              start from a run of dsod_coco.py, with its default boxes, at lr=0.001
    mini                  quarter width, 128 pixels, batch 16 (bn_group=0), 600 steps, trainval and test of
                          any folder of VOC shape; lr as it is

Source: Shen et al. 2017, Tables 1 and 4
Paper: VOC07 mAP 77.7 (dense), 77.3 (plain), 81.7 (after COCO); VOC12 76.3; the repository has 78.9 with 12
    images a GPU (nearest: bn_group=16)
Ours: full arms not run by us; in miniature (BCCD, two seeds) 53.2 dense, 54.8 plain: docs/studies.md
Cost: about 773 epochs of 16,551 images (VOC12: 655 of 21,503), 15.1 GMAC an image; mini 0.9 CPU seconds
    a step
"""

from experiments.scratchdet_voc import miniature, pick, voc
from jdet import build
from jdet.config import parse_arg

ARGUMENTS = dict(
    root="data", train="", test="", mini=False, size=0, lr=0.0, batch=0, steps=0, seed=0
)
DSOD_ARGUMENTS = ARGUMENTS | dict(last_scale="2x2", bn_group=-1, coco="")


def get_config(arg=""):
    arg = parse_arg(arg, head="dense", **DSOD_ARGUMENTS)
    return experiment(arg, "64-192-48-1", arg.head)


def experiment(arg, name, head, body=()):
    """A model on VOC by the published recipe; ``arg`` has the keys of ``DSOD_ARGUMENTS``."""
    c = start(arg)
    boxes = dict(first_ratio=0.07, min_ratio=0.15) if arg.coco else {}
    c.model = dsod(name, head, last_scale=arg.last_scale, body=body, **boxes)
    share_statistics(c, arg)
    if arg.coco:
        c.init_from.path = arg.coco
    lr = 0.001 if arg.coco else 0.1
    if arg.train == "07++12":
        return recipe(c, arg, lr, 128, 110_000, (30_000, 50_000, 70_000, 90_000))
    return recipe(c, arg, lr, 128, 100_000, (20_000, 40_000, 60_000, 80_000))


def start(arg):
    """Defaults with seed and data: VOC 07+12 and VOC07 test, or trainval and test of one folder."""
    train, test = ("trainval", "test") if arg.mini else ("07+12", "07test")
    c = voc(arg.root, arg.train or train, arg.test or test, arg.seed)
    c.data.workers = 2
    return c


def dsod(name="64-192-48-1", head="dense", *, last_scale="2x2", body=(), **values):
    """DSOD's model DS/``name`` = A-B-k-θ; ``body`` are further fields of the backbone."""
    dense = is_dense(head)
    first, bottleneck, growth, compression = name.split("-")
    sizes = dict(first=int(first), bottleneck=int(bottleneck), growth=int(growth))
    sizes |= dict(compression=float(compression), last_channels=256 if dense else 0)
    return build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "dsod", **sizes, **dict(body)),
        neck=build.group("neck", "dense_prediction", dense=dense, last_scale=last_scale),
        l2norm_levels=-1,
        **values,
    )


def is_dense(head):
    """Whether the argument ``head`` asks for dense prediction layers."""
    pick("head", head, ("dense", "plain"))
    return head == "dense"


def share_statistics(c, arg):
    """BatchNorm over ``bn_group`` images: 4, or in miniature those of a device."""
    group = arg.bn_group if arg.bn_group >= 0 else 0 if arg.mini else 4
    if group:
        c.model.norm = c.model.head_norm = "sync_batch"
        c.parallel.bn_group_size = group


def recipe(c, arg, lr, batch, steps, drops):
    """The published optimisation (``lr`` belongs to ``batch``), or what two CPU cores can train."""
    c.train.batch_size = arg.batch or batch
    c.train.steps = arg.steps or steps
    c.train.eval_every = max(c.train.steps // 10, 1)
    c.optimizer.lr = arg.lr or lr
    c.optimizer.reference_batch = batch
    c.optimizer.boundaries = tuple(drop / steps for drop in drops)
    if arg.mini:
        miniature(c, arg.steps, width=0.25, batch=arg.batch)
        c.model.first_ratio, c.model.min_ratio = 0.15, 0.25  # fit BCCD's cells, not its platelets
    c.input_size = arg.size or c.input_size
    return c
