"""Do dense prediction layers help SSD with VGG-16, trained from scratch?

    python -m jdet.main --config=experiments/ssd300s_vgg_dense.py --workdir=runs/ssd300s_dense
    python -m jdet.main --config=experiments/ssd300s_vgg_dense.py:head=plain --workdir=runs/ssd300s_plain
    python -m jdet.main --config=experiments/ssd300s_vgg_dense.py:mini,root=BCCD --workdir=runs/ssd300s_mini

SSD300S: no norms, L2 normalisation of the first level, batch 64 and SSD's schedule (lr 0.001, divided by
ten at 80k and 100k of 120k steps). The paper does not say how the dense layers sit on fc7; here its 1024
channels are scale 2's learned half, 26,254,510 parameters in all (26.0M printed; plain 26,285,486, 26.3M
printed). ``mini`` and the other arguments are those of ``dsod_voc.py``.

Source: Shen et al. 2017, Table 4
Paper: VOC07 mAP 70.4 (dense), 69.6 (plain)
Ours: not run by us
Cost: about 464 epochs of 16,551 images, 31.5 GMAC an image
"""

from experiments.common import voc_or_folder
from experiments.common_dsod import ARGUMENTS, is_dense, recipe
from jdet import build
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, head="dense", **ARGUMENTS)
    c = voc_or_folder(arg)
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "vgg16"),
        neck=build.group("neck", "dense_prediction" if is_dense(arg.head) else "ssd_extras"),
        norm="none",
        head_norm="none",
        l2norm_levels=1,
    )
    return recipe(c, arg, 0.001, 64, 120_000, (80_000, 100_000))
