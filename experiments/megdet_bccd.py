"""Does a batch of 256 find blood cells as well as one of 8? MegDet's recipe on BCCD, for an accelerator.

    E=experiments/megdet_bccd.py
    python -m jdet.main --config=$E:batch=8,bn=8 --workdir=runs/cells_b8 --config.data.root=BCCD
    python -m jdet.main --config=$E:batch=256,bn=32 --workdir=runs/cells_b256 --config.data.root=BCCD
    python -m jdet.main --config=$E:batch=256,bn=2 --workdir=runs/cells_b256_bn2 --config.data.root=BCCD

ScratchDet300 with the default boxes, crops and flips of ``scratchdet_bccd.py``, and the arguments of
``megdet_voc.py`` but for ``mini`` and the data: 660 epochs (long: 1080) of 292 images, the rate 0.15
(without norms 0.003) at 32 images. What two CPU cores can train is ``megdet_voc.py:mini,root=BCCD``.

Source: Peng et al. 2018 (MegDet), Table 3, on a small set
Paper: –
Ours: not run by us
Cost: 660 epochs of 292 images an arm, 33 GMAC an image
"""

from experiments import scratchdet_bccd
from experiments.common import MEGDET, megdet
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, **MEGDET)
    c = scratchdet_bccd.get_config(f"seed={arg.seed}")
    c.train.eval_every = 0
    return megdet(c, arg, lr=0.003 if arg.norm == "none" else 0.15, reference=32, stretch=60)
