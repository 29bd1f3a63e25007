"""Blood cells from scratch: a domain that looks nothing like ImageNet.

    python -m jdet.main --config=experiments/scratchdet_bccd.py:cpu --workdir=runs/bccd \
        --config.data.root=BCCD

BCCD (github.com/Shenggan/BCCD_Dataset, MIT; folder of VOC shape): 292 pictures of 640×480 to train on
(trainval), 72 to test; red cells, white cells, platelets. Many red cells carry no box, so some
right detections count as wrong.

``:cpu``  Root-ResNet-18 at half width, 128-pixel input, batch 16: half an hour on two shared CPU cores.
default   Root-ResNet-34 at 300 pixels, batch 32, as ScratchDet300: for an accelerator.

Source: ours
Paper: –
Ours: VOC07 mAP 0.803 with ``:cpu`` (red 0.716, white 0.966, platelets 0.727; one seed, still rising at the
    end of the schedule); the full arm not run by us
Cost: ``:cpu`` half an hour on two shared CPU cores
"""

from jdet import build
from jdet.config import get_defaults, parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, cpu=False, steps=0, lr=0.05, seed=0)
    c = get_defaults()
    c.seed = arg.seed
    c.data.root = "data/bccd"
    c.data.train = build.group("source", "voc", root=c.data.get_ref("root"), splits="trainval")
    c.data.eval = build.group("source", "voc", root=c.data.get_ref("root"), splits="test")
    c.optimizer.lr = arg.lr
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup = 100

    depth, width = (18, 0.5) if arg.cpu else (34, 1.0)
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "root_resnet", depth=depth, width=width),
        neck=build.group("neck", "residual_extras", width=width),
    )
    if arg.cpu:
        c.input_size = 128
        c.train.batch_size = c.optimizer.reference_batch = 16
        c.train.steps = arg.steps or 1200
        c.train.ema = 0.995
    else:
        c.train.batch_size = 32
        c.optimizer.reference_batch = 32
        c.train.steps = arg.steps or 6000
        c.train.ema = 0.999
    c.train.eval_every = c.train.steps // 4
    return c
