"""Why does BatchNorm let a detector train from scratch? The loss surface along runs of VGG-16 SSD.

    E=experiments/scratchdet_landscape.py
    python -m jdet.main --config=$E:norm=none,lr=0.001 --workdir=runs/none
    python -m jdet.main --config=$E:norm=head,lr=0.001 --workdir=runs/head
    python -m jdet.main --config=$E:norm=head,lr=0.01 --workdir=runs/head_10lr
    python -m jdet.analysis.landscape runs/none runs/head runs/head_10lr --out=runs/fig1

The three runs of Fig. 1, with norm=backbone those of Fig. 7: cells of ``scratchdet_table1.py`` (VOC07+12,
batch 128, 120k steps) that record loss and gradient norms at every step, and at every 500th look ahead
along the gradient (docs/landscape.md). Arguments: norm=none | head | backbone | both,
lr=0.001 | 0.01 | 0.05, batch=128, steps=0, root=data, seed=0.

In miniature, on any folder of VOC shape (quarter width, 96 pixels, batch 16, 300 steps, constant rate, a
look ahead at every 20th):

    python -m jdet.main --config=$E:mini=true,root=BCCD,norm=none,lr=0.001 --workdir=runs/none
    python -m jdet.main --config=$E:mini=true,root=BCCD,norm=both,lr=0.001 --workdir=runs/bn
    python -m jdet.main --config=$E:mini=true,root=BCCD,norm=both,lr=0.01 --workdir=runs/bn_10lr
    python -m jdet.analysis.landscape runs/none runs/bn runs/bn_10lr --out=runs/mini \
        --labels=none@lr,BN@lr,BN@10lr

Source: Zhu et al. 2019, Fig. 1 and 7
Paper: final loss about 3.0 (none, 0.001), 2.4 (head, 0.001), 1.9 (head, 0.01), read off the figure; the
    fluctuation of the gradient norm starts in the same order
Ours: full runs not run by us; in miniature (BCCD) final loss 4.99 (none), 6.44 (both, 0.001), 4.31 (both,
    0.01), effective smoothness 1470, 279, 44: docs/landscape.md
Cost: about 928 epochs of 16,551 images per arm, 31.4 GMAC per image; mini 3 minutes on two CPU cores
"""

from experiments import scratchdet_table1
from jdet.config import parse_arg


def get_config(arg=""):
    shared = dict(norm="both", lr=0.001, root="data", batch=0, steps=0, mini=False, seed=0)
    arg = parse_arg(arg, **shared)
    c = scratchdet_table1.get_config(",".join(f"{key}={value}" for key, value in arg.items()))
    c.landscape.every = 1
    c.landscape.depth = 2
    c.landscape.probe_every = 20 if arg.mini else 500
    if arg.mini:
        c.input_size = 96
        c.model.taps = ()
        c.train.steps = arg.steps or 300
        c.train.eval_every = 0
        c.optimizer.schedule = "constant"
    return c
