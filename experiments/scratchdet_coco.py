"""ScratchDet300 on COCO: does training from scratch still win on a large set?

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/scratchdet_coco.py --workdir=runs/scratchdet_coco

As ``scratchdet_voc.py``, with COCO's smaller default boxes (7 and 15 % of the side), crowds left out of
training, drops at 150k, 250k and 310k of 320k steps (sec. 4.2). backbone=, release=, norm=, head_norm= and
gn are those of ``scratchdet_voc.py``; GroupNorm cost the author about 1 AP here. ``tta=coco`` adds
multi-scale testing (ScratchDet300+) after training, or with --mode=evaluate.

Source: Zhu et al. 2019, Tables 4 and 8
Paper: COCO test-dev AP 32.7, AP50 52.0, AP75 34.9, S 13.0, M 35.6, L 49.0; tta=coco AP 39.1,
    AP50 59.2, AP75 42.6
Ours: not run by us
Cost: about 346 epochs of 118,287 images, 34.8 GMAC an image
"""

from experiments.common import SCRATCHDET, batch_and_rate, coco, norms, scratchdet
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, root="data", **SCRATCHDET, lr=0.0, batch=0, seed=0, tta="none")
    c = coco(arg.root, arg.seed)
    boxes = dict(first_ratio=0.07, min_ratio=0.15, train_ignored=False)
    c.model = scratchdet(arg.backbone, arg.release, **norms(arg), **boxes)
    c.train.steps = 320_000
    c.train.eval_every = 20_000
    c.optimizer.boundaries = (150 / 320, 250 / 320, 310 / 320)
    batch_and_rate(c, arg)
    c.eval.tta.preset = arg.tta
    return c
