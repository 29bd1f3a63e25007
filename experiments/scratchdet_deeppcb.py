"""Can defects of circuit boards, small and on binary scans, be learnt from scratch?

    python -m jdet.main --config=experiments/scratchdet_deeppcb.py:cpu --workdir=runs/deeppcb \
        --config.data.root=DEEPPCB

DeepPCB (github.com/tangsanli5201/DeepPCB, MIT; as a folder of VOC shape): 1000 boards of 640×640 to train
on (trainval), 500 to test (the official list); six kinds of defects of 20 to 60 pixels. The template
images are not used. Boards have no up: all eight orientations are drawn; they are black and white
and all at one scale: nothing is recoloured, zoomed or cropped.

The default boxes are those that `python -m jdet.analysis.default_boxes` proposes: with ScratchDet's
own ratios 13 % of the defects reach an IoU of 0.5 with one, with these 99.8 %.

``:cpu``  ResNet-18 at 3/8 width, 320-pixel input, levels from stride 4 on, batch 8, norms over all
    images of a step: for two CPU cores.
default   Root-ResNet-34 at 640 pixels, batch 16: for an accelerator.

Source: ours; the set: github.com/tangsanli5201/DeepPCB
Paper: –
Ours: the full arm VOC07 mAP 0.798 after steps=800 (area 0.830), still climbing (bfloat16); ``:cpu`` VOC07
    mAP 0.826 (area 0.868), COCO AP 0.542
Cost: ``:cpu`` 14 minutes on two CPU cores; the full arm 148 GMAC an image, 6000 steps of 16; 800 steps 9
    minutes on a shared H200
"""

from experiments.common import boards_on_cpu, boards_recipe, voc
from jdet import build
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, cpu=False, steps=0, lr=0.05, seed=0)
    c = voc("data/deeppcb", "trainval", "test", arg.seed)
    boards_recipe(c, arg)

    if arg.cpu:
        c.input_size = 320
        backbone, width = build.group("backbone", "resnet", depth=18, width=0.375), 0.375
        boxes = dict(taps=("c2", "c3", "c4", "c5"), first_ratio=0.05, min_ratio=0.08, max_ratio=0.5)
        boards_on_cpu(c, arg)
    else:
        c.input_size = 640
        backbone, width = build.group("backbone", "root_resnet", depth=34), 1.0
        boxes = dict(first_ratio=0.05, min_ratio=0.08, max_ratio=0.5)
        c.train.steps = arg.steps or 6000
        c.train.ema = 0.999
    neck = build.group("neck", "residual_extras", width=width)
    norm = "sync_batch" if arg.cpu else "batch"
    boxes |= dict(norm=norm, head_norm=norm)
    c.model = build.group("detector", "ssd", backbone=backbone, neck=neck, **boxes)
    c.train.eval_every = max(c.train.steps // 4, 1)
    return c
