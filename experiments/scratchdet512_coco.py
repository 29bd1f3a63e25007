"""ScratchDet512 on COCO: what do more pixels add?

    python -m jdet.main --config=experiments/scratchdet512_coco.py --workdir=runs/scratchdet512_coco

The body of ScratchDet300 with seven levels, 64 to 1 cells a side, steps 8 to 512, smallest boxes 4 and
10 % of the side. Extra levels as in the authors' mmdetection code, the only place where this model
exists; ``release=`` (empty) carries ScratchDet300's residual blocks on to 1×1 instead. Recipe of that
code: 20 images per device, lr 0.03, drops after 190, 350 and 400 of 420 epochs, 500 steps of warm-up
from a third. How many devices it took is not known; four are assumed (batch 80) and lr is not scaled.

Source: released code of Zhu et al. 2019
Paper: none
Ours: not run by us
Cost: 420 epochs of 118,287 images, 99.9 GMAC an image
"""

from experiments.common import SCRATCHDET, coco, norms, scratchdet
from jdet.config import parse_arg


def get_config(arg=""):
    model = SCRATCHDET | dict(release="mmdetection")
    arg = parse_arg(arg, root="data", **model, lr=0.03, batch=0, seed=0)
    c = coco(arg.root, arg.seed)
    c.input_size = 512
    boxes = dict(first_ratio=0.04, min_ratio=0.10, train_ignored=False)
    c.model = scratchdet(arg.backbone, arg.release, **norms(arg), **boxes)
    c.train.batch_size = arg.batch or (16 if arg.gn else 80)
    c.train.epochs = 420.0
    c.train.eval_every = 20_000
    c.optimizer.lr = arg.lr
    c.optimizer.reference_batch = 0
    c.optimizer.boundaries = (38 / 84, 70 / 84, 80 / 84)
    c.optimizer.warmup, c.optimizer.warmup_start = 500, 1 / 3
    return c
