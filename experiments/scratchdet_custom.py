"""ScratchDet on your own images: name a folder, the rest is read from the data.

    python -m jdet.main --config=experiments/scratchdet_custom.py:root=PATH --workdir=runs/mine
    python -m jdet.main --config=experiments/scratchdet_custom.py:root=PATH,cpu --workdir=runs/mine

PATH is a folder as a labelling tool left it: of YOLO, COCO, VOC, CVAT, LabelMe, VIA, Open Images, CSV
or DOTA (docs/your_data.md), with "train" and "val", "valid" or "test" as a word in the names of its
files or folders. Where there is only one split, a tenth of it is held out.

Derived from the data (docs/small_data.md): classes, input size (300 to 512 pixels), tiles, crops, flips,
class balance, room for all objects and detections, and the length of the run (every image about 200
times, 6,000 to 100,000 steps; minutes=60: what fits). ``cpu`` trains a half-width Root-ResNet-18 at 128 to
320 pixels instead, 1,200 to 6,000 steps. Where its default boxes would leave many objects of a class
unmatched, ratios, levels and, but for cpu and size=, the input size are those that
``jdet.analysis.default_boxes`` proposes. Images that are not 8-bit RGB are normalised by what is measured
on them, and change in the range of their values. The start says all of it, in lines that begin with the
argument by which it is set: size= tile= zoom= flips= balance=, and fit=false, batch=, steps=, lr=. What the
data leave open is said by layout=yolo (of several in one folder), image_root=PATH (folder of the images),
classes=cat+dog or a text file with one a line, and coordinates=edges, from_0, from_1 or relative (how boxes
count). What the command line sets under --config.data counts before anything is derived.

Source: ours
Paper: –
Ours: depends on the data; ``scratchdet_bccd.py`` gives a feeling
Cost: depends on the data
"""

import numpy as np

from experiments.common_own import OWN, TILED, decide, fit_default_boxes, own_images, own_recipe
from jdet import build
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, **OWN | TILED)
    own = own_images(arg, "scratchdet_custom")
    c, smallest = own.config, float(np.clip(own.smallest, 0.04, 0.10))

    c.input_size = decide(own, arg, *((128, 320) if arg.cpu else (300, 512)), quarters=True)
    depth, width = (18, 0.5) if arg.cpu else (34, 1.0)
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "root_resnet", depth=depth, width=width),
        neck=build.group("neck", "residual_extras", width=width),
        first_ratio=round(smallest, 3),
        min_ratio=round(2 * smallest, 2),
    )

    if arg.fit:
        fit_default_boxes(c, own.source, same_size=arg.cpu or arg.size > 0)
    own_recipe(c, arg, own)
    return c
