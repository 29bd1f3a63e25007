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

from experiments.common_dsod import DSOD_ARGUMENTS, dsod_on_voc
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, head="dense", **DSOD_ARGUMENTS)
    return dsod_on_voc(arg, "64-192-48-1", arg.head)
