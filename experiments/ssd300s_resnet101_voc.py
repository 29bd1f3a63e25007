"""Does a deeper classifier backbone help when nothing is pre-trained? SSD300S and SSD321 with ResNet-101.

    python -m jdet.main --config=experiments/ssd300s_resnet101_voc.py --workdir=runs/ssd300s_r101
    python -m jdet.main --config=experiments/ssd300s_resnet101_voc.py:ssd321 --workdir=runs/ssd321_r101

ResNet-101 whose last stage keeps stride 16 (dilation 2), BatchNorm in the backbone and the extra levels,
none in the head, default boxes from the released tables. SSD300S: three pairs of extra convolutions and
an average, 7308 clipped boxes, batch 64, lr 0.001 divided by ten at 80k and 100k of 120k steps. ``ssd321``:
bottleneck extras, a prediction module on every level, 5×5 predictions on the first two, 17,080 boxes
around pixel centres, batch 32, drops at 40k and 60k of 80k steps. DSOD's authors name batch 64 and SSD's
defaults; the released script of that model has batch 32, drops at 40k and 60k, no photometric distortion
and no zoom-out.

Source: Shen et al. 2017, Table 4; Fu et al. 2017 (DSSD); tables of boxes from the released code
Paper: VOC07 mAP 63.8 (SSD300S, from scratch); SSD321 with ImageNet weights 77.1
Ours: not run by us
Cost: about 464 epochs of 16,551 images, 19.9 GMAC an image (ssd321: 155 epochs, 35.9 GMAC)
"""

from experiments.common import voc
from jdet import build
from jdet.config import parse_arg

SIZES = (0.10, 0.20, 0.38, 0.56, 0.74, 0.92, 1.10)  # of the side, SSD321
NECKS = {
    False: dict(name="ssd_extras", channels=(512,), pool_last=True),
    True: dict(name="bottleneck_extras"),
}
BOXES = {
    False: dict(
        min_sizes=(30.0, 60.0, 114.0, 168.0, 222.0, 276.0),
        max_sizes=(0.0, 114.0, 168.0, 222.0, 276.0, 330.0),
        aspect_ratios=((2.0,), *((2.0, 3.0),) * 5),
        steps=tuple(300 / side for side in (38, 19, 10, 5, 3, 1)),
        clip_boxes=True,
    ),
    True: dict(
        min_sizes=tuple(float(int(321 * size)) for size in SIZES[:-1]),
        max_sizes=tuple(float(int(321 * size)) for size in SIZES[1:]),
        aspect_ratios=((1.6, 2.0, 3.0),) * 6,
        steps=(8.0, 16.0, 32.0, 64.0, 64.0, 321.0),
        first_centres=(2.5, 2.5, 10.5, 26.5, 90.5, 160.5),
        head_kernels=(5, 5, 3),
    ),
}


def get_config(arg=""):
    data = dict(root="data", train="07+12", test="07test", seed=0)
    arg = parse_arg(arg, ssd321=False, norm="batch", head_norm="none", lr=0.001, batch=0, **data)
    c = voc(arg.root, arg.train, arg.test, arg.seed)
    c.input_size = 321 if arg.ssd321 else 300
    body = dict(depth=101, stride_first=True, caffe_pool=True, dilation=2)
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "resnet", **body),
        neck=build.group("neck", **NECKS[arg.ssd321]),
        taps=("c3", "c5"),
        norm=arg.norm,
        head_norm=arg.head_norm,
        **BOXES[arg.ssd321],
    )
    c.data.workers = 2
    batch, steps, drops = (32, 80, (40, 60)) if arg.ssd321 else (64, 120, (80, 100))
    c.train.batch_size = c.optimizer.reference_batch = arg.batch or batch
    c.train.steps = steps * 1000
    c.train.eval_every = 10_000
    c.optimizer.lr = arg.lr
    c.optimizer.boundaries = tuple(drop / steps for drop in drops)
    return c
