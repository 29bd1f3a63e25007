"""Does the focal loss on all anchors learn defects of circuit boards from scratch, as ScratchDet does?

    python -m jdet.main --config=experiments/retinanet_deeppcb.py:cpu --workdir=runs/retinanet_deeppcb \
        --config.data.root=DEEPPCB

Data and pictures as in ``scratchdet_deeppcb.py``: 1000 boards of 640×640 to train on, 500 to test, defects
of 20 to 60 pixels, all eight orientations. Anchors from three strides on, on levels of stride 8, 16 and 32
(4 to 32 in the CPU arm): every defect overlaps one by half. Norms in backbone, pyramid and towers,
those of the towers with statistics for every level.

``:cpu``  ResNet-18 at 3/8 width, pyramid and single-layer towers of 64 channels, 320-pixel input, batch 16:
    for two CPU cores.
default   ResNet-34 at 640 pixels, batch 16: for an accelerator.

Source: ours; the model: Lin et al. 2017b; the set: github.com/tangsanli5201/DeepPCB
Paper: –
Ours: not run by us
Cost: ``:cpu`` 2.0 GMAC a picture, 750 steps of 16; the full arm 6000 steps of 16
"""

from experiments.retinanet_coco import decay_without_norms, retinanet
from experiments.scratchdet_deeppcb import recipe
from experiments.scratchdet_voc import voc
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, cpu=False, steps=0, lr=0.02, seed=0)
    c = voc("data/deeppcb", "trainval", "test", arg.seed)
    recipe(c, arg)
    decay_without_norms(c)

    if arg.cpu:
        c.input_size = 320
        size = dict(depth=18, width=0.375, channels=64, head_depth=1, taps=("c2", "c3", "c4", "c5"))
        c.train.steps = arg.steps or 750
        c.train.ema = 0.995
        c.parallel.cpu_devices = 2
    else:
        c.input_size = 640
        size = dict(depth=34)
        c.train.steps = arg.steps or 6000
        c.train.ema = 0.999
    c.model = retinanet(norm="batch", extra="none", anchor_scale=3.0, **size)
    c.train.eval_every = max(c.train.steps // 4, 1)
    return c
