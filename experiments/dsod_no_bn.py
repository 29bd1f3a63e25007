"""Is it BatchNorm that lets DSOD train from scratch?

    python -m jdet.main --config=experiments/dsod_no_bn.py:lr=0.001 --workdir=runs/dsod_no_bn_1e-3
    python -m jdet.main --config=experiments/dsod_no_bn.py:lr=0.005 --workdir=runs/dsod_no_bn_5e-3
    python -m jdet.main --config=experiments/dsod_no_bn.py:lr=0.01 --workdir=runs/dsod_no_bn_1e-2
    python -m jdet.main --config=experiments/dsod_no_bn.py:mini,root=BCCD --workdir=runs/dsod_no_bn_mini

DSOD300 without any norm in backbone, prediction layers and head: convolutions get a bias, ReLUs and the
L2 normalisation of all levels stay. The paper names no learning rate; run the three and report the best.
A run that diverges stops, names the step, and is a result. The other side is ``dsod_voc.py``, here and
with ``mini``.

Source: Zhu et al. 2019
Paper: VOC07 mAP 71.5, against 77.7 with norms
Ours: full arms not run by us; in miniature (BCCD, two seeds) 21.3 at 0.001, 3.7 and 3.6 at larger rates,
    against 53.2 with norms: docs/studies.md
Cost: about 773 epochs of 16,551 images an arm, 15.1 GMAC an image; mini at most 0.9 CPU seconds a step
"""

from experiments.common import voc_or_folder
from experiments.common_dsod import ARGUMENTS, dsod, recipe
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, head="dense", **ARGUMENTS)
    c = voc_or_folder(arg)
    c.model = dsod("64-192-48-1", arg.head, norm="none", head_norm="none")
    return recipe(c, arg, 0.005, 128, 100_000, (20_000, 40_000, 60_000, 80_000))
