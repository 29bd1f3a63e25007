"""ScratchDet300 on PASCAL VOC: can a detector trained from scratch beat a fine-tuned one?

    python data/get_voc.py --root data
    python -m jdet.main --config=experiments/scratchdet_voc.py --workdir=runs/scratchdet_voc
    python -m jdet.main --config=experiments/scratchdet_voc.py:train=07++12,test=12 …

Root-ResNet-34, residual extras, BatchNorm in backbone and head, 07+12 trainval, VOC07 test
(Zhu et al. 2019, Table 3; recipe of sec. 4: batch 128, lr 0.05, drops at 45k, 75k and 95k of 100k
steps, momentum 0.9, weight decay 5e-4, no warm-up). Arguments pick the cells of Tables 1 and 2:

    backbone=root_resnet34 | root_resnet18 | resnet18 | resnet18a | resnet18b | vgg16
    norm=batch head_norm=batch   each none, batch, sync_batch, group, frozen_batch
    lr=0.05  batch=128  seed=0

The paper normalises over 16 pictures per device; with 8 devices the default does the same.

Cost: about 773 epochs of 16,551 pictures (ImageNet pre-training saved).
Expect: VOC07 mAP 80.4 reported by the paper (78.5 with root_resnet18); not run by us.
"""

from jdet import build
from jdet.config import get_defaults, parse_arg

BACKBONES = {
    "root_resnet34": dict(name="root_resnet", depth=34),
    "root_resnet18": dict(name="root_resnet", depth=18),
    "resnet18": dict(name="resnet", depth=18),
    "resnet18a": dict(name="resnet", depth=18, pool=0),
    "resnet18b": dict(name="resnet", depth=18, stem_stride=1),
    "vgg16": dict(name="vgg16"),
}


def get_config(arg=""):
    arg = parse_arg(
        arg,
        root="data",
        train="07+12",
        test="07test",
        backbone="root_resnet34",
        norm="batch",
        head_norm="batch",
        lr=0.05,
        batch=128,
        seed=0,
    )
    c = get_defaults()
    c.seed = arg.seed
    c.input_size = 300
    c.data.root = arg.root
    c.data.train = build.group("source", "voc", root=c.data.get_ref("root"), splits=arg.train)
    c.data.eval = build.group("source", "voc", root=c.data.get_ref("root"), splits=arg.test)
    c.data.workers = 2

    c.model = scratchdet(arg.backbone, norm=arg.norm, head_norm=arg.head_norm)

    c.train.batch_size = arg.batch
    c.train.steps = 100_000
    c.train.eval_every = 10_000
    c.optimizer.lr = arg.lr  # at batch 128; other batches scale linearly
    c.optimizer.boundaries = (0.45, 0.75, 0.95)
    return c


def scratchdet(backbone, **values):
    """ScratchDet's model: residual extras above Root-ResNet-34, SSD's extras above all others."""
    neck = "residual_extras" if backbone == "root_resnet34" else "ssd_extras"
    return build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", **BACKBONES[backbone]),
        neck=build.group("neck", neck),
        **values,
    )
