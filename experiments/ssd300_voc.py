"""How far does classic SSD, without any norm, get from random weights?

    python -m jdet.main --config=experiments/ssd300_voc.py --workdir=runs/ssd300_voc
    python -m jdet.main --config=experiments/ssd300_voc.py:size=512 --workdir=runs/ssd512_voc

VGG-16 with the first level L2-normalised, batch 32, lr 0.001 divided by ten at 80k and 100k of 120k steps.
SSD300 has 8732 boxes from 10, 20, … 90 % of the side; SSD512 one level more (64, 32, 16, 8, 4, 2, 1),
24,564 boxes from 7, 15, … 90 %.

    size=300 | 512    norm=none head_norm=none  each none, batch, sync_batch, group
    train=07+12  test=07test  lr=0.001  batch=32  root=data  seed=0

Source: Liu et al. 2016; from scratch: Zhu et al. 2019, Table 1, Shen et al. 2017, Table 4
Paper: VOC07 mAP 77.2 with ImageNet weights; from scratch 67.6 (batch 128, no L2 norm) and 69.6 (batch 64)
Ours: not run by us
Cost: about 232 epochs of 16,551 images, 31.4 (size=300) or 90.2 (512) GMAC an image
"""

from experiments.common import pick, voc
from jdet import build
from jdet.config import parse_arg

RATIOS = {300: dict(first_ratio=0.10, min_ratio=0.20), 512: dict(first_ratio=0.07, min_ratio=0.15)}


def get_config(arg=""):
    data = dict(root="data", train="07+12", test="07test", seed=0)
    arg = parse_arg(arg, size=300, norm="none", head_norm="none", lr=0.001, batch=32, **data)
    pick("size", arg.size, RATIOS)
    c = voc(arg.root, arg.train, arg.test, arg.seed)
    c.input_size = arg.size
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "vgg16"),
        neck=build.group("neck", "ssd_extras"),
        norm=arg.norm,
        head_norm=arg.head_norm,
        l2norm_levels=1,
        **RATIOS[arg.size],
    )
    c.data.workers = 2
    c.train.batch_size = c.optimizer.reference_batch = arg.batch
    c.train.steps = 120_000
    c.train.eval_every = 10_000
    c.optimizer.lr = arg.lr
    c.optimizer.boundaries = (80 / 120, 100 / 120)
    return c
