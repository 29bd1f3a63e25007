"""Does it learn? A small ScratchDet on synthetic shapes, from random initialisation.

    make quickstart
    python -m jdet.main --config=experiments/quickstart.py --workdir=runs/quickstart

Six shapes that differ by form only, on textured backgrounds with clutter, rendered on the fly: no
download. Root-ResNet-18 at half width, 96-pixel input, norms in backbone and head (ScratchDet, sec. 3).

Cost: about 4 minutes on two CPU cores.
Expect: mAP@0.5 of 0.80 or more on 400 unseen pictures.
"""

from jdet import build
from jdet.config import get_defaults, parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, steps=1000, seed=0)
    c = get_defaults()
    c.seed = arg.seed
    c.input_size = 96
    c.data.train = build.group("source", "shapes", size=96, count=8000, split="train")
    c.data.eval = build.group("source", "shapes", size=96, count=400, split="test")
    c.data.max_boxes = 16
    # The set varies scale, place and colour by itself; zooming out to a quarter would only
    # shrink shapes below what 96 pixels can show.
    c.augment.expand = 0.0
    c.augment.crop = False
    c.augment.photometric = 0.0
    c.augment.interpolation = "linear"

    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "root_resnet", depth=18, width=0.5),
        neck=build.group("neck", "residual_extras", width=0.5),
        first_ratio=0.12,
        min_ratio=0.25,
    )

    c.train.batch_size = 16
    c.train.steps = arg.steps
    c.train.eval_every = max(arg.steps // 4, 1)
    c.optimizer.lr = 0.05
    c.optimizer.reference_batch = 16
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup = min(50, arg.steps // 10)
    return c
