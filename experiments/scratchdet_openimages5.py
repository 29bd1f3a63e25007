"""How far does training from scratch get with 537 photographs of five everyday classes?

    python -m jdet.main --config=experiments/scratchdet_openimages5.py:cpu --workdir=runs/openimages5 \
        --config.data.root=OPENIMAGES5

A folder of VOC shape made from Open Images (boxes CC BY 4.0; apple, bicycle, bird, boat, person): 537
images to train on (trainval), 135 to test. Groups are boxed like single objects and not every person is
labelled, so some right detections count as wrong. The full SSD augmentation stands in for images.

``:cpu``  Root-ResNet-18 at half width, 192-pixel input, batch 16: for two CPU cores.
default   Root-ResNet-34 at 300 pixels, batch 32, as ScratchDet300: for an accelerator.

Source: ours; the images: Open Images
Paper: –
Ours: the full arm VOC07 mAP 0.088 after steps=2000: too few images and steps (bfloat16); ``:cpu`` not run
    to its end by us
Cost: ``:cpu`` under half an hour on two CPU cores (estimated from the first steps);
    the full arm 33 GMAC an image, 12,000 steps of 32; 2000 steps 7 minutes on a shared H200
"""

from experiments.common import voc
from jdet import build
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, cpu=False, steps=0, lr=0.05, seed=0)
    c = voc("data/openimages5", "trainval", "test", arg.seed)
    c.optimizer.lr = arg.lr
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup = 100 if not arg.steps else min(100, arg.steps // 10)

    if arg.cpu:
        c.input_size = 192
        backbone = build.group("backbone", "root_resnet", depth=18, width=0.5, stem_stride=2)
        boxes = dict(
            taps=("c2", "c3", "c4", "c5"), first_ratio=0.05, min_ratio=0.12, max_ratio=0.75
        )
        width = 0.5
        c.train.batch_size = c.optimizer.reference_batch = 16
        c.train.steps = arg.steps or 1400
        c.train.ema = 0.995
        c.parallel.cpu_devices = 2
    else:
        backbone, width = build.group("backbone", "root_resnet", depth=34), 1.0
        boxes = dict(first_ratio=0.07, min_ratio=0.15)
        c.train.batch_size = c.optimizer.reference_batch = 32
        c.train.steps = arg.steps or 12_000
        c.train.ema = 0.999
    neck = build.group("neck", "residual_extras", width=width)
    c.model = build.group("detector", "ssd", backbone=backbone, neck=neck, **boxes)
    c.train.eval_every = max(c.train.steps // 4, 1)
    return c
