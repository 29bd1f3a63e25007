"""DSOD300 on COCO: how far do dense blocks get from scratch on a large set?

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/dsod_coco.py --workdir=runs/dsod_coco
    python -m jdet.main --config=experiments/dsod_coco.py:mini,root=BCCD --workdir=runs/dsod_coco_mini

As ``dsod_voc.py``, with COCO's smaller default boxes (7 and 15 % of the side), crowds left out of
training, lr divided by ten at 80k, 140k, 200k and 260k of 320k steps. The paper trains on trainval
(123,287 images) and tests on test-dev, whose boxes are on a server; here train2017 and
val2017. ``mini`` takes a small folder of VOC shape instead.

Source: Shen et al. 2017
Paper: COCO test-dev AP 29.3, AP50 47.3, AP75 30.6, S 9.4, M 31.5, L 47.0
Ours: not run by us
Cost: about 346 epochs of 118,287 images, 18.4 GMAC an image
"""

from experiments.common import coco, voc_or_folder
from experiments.common_dsod import DSOD_ARGUMENTS, dsod, recipe, share_statistics
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, head="dense", **{k: v for k, v in DSOD_ARGUMENTS.items() if k != "coco"})
    c = voc_or_folder(arg) if arg.mini else coco(arg.root, arg.seed, arg.train, arg.test)
    boxes = dict(first_ratio=0.07, min_ratio=0.15, train_ignored=False)
    c.model = dsod("64-192-48-1", arg.head, last_scale=arg.last_scale, **boxes)
    share_statistics(c, arg)
    return recipe(c, arg, 0.1, 128, 320_000, (80_000, 140_000, 200_000, 260_000))
