"""From nothing on your own images: what does one recipe reach in so many minutes?

    E=experiments/own_folder.py
    python -m jdet.main --config=$E:root=PATH,cpu,minutes=60 --workdir=runs/mine

PATH is a folder as a labelling tool left it (docs/your_data.md). All else follows from the labels and the
time, and is said in a line each at the start, which begins with the argument that says otherwise
(docs/small_data.md).

    minutes=60  of training on this machine; the first steps are timed, and as many follow as fit
    compile     compiling counts among them
    detector=ssd | atss | fcos | retinanet
    size=224    pixels; by the small objects of the smallest class, 12 pixels each where they can have them
    tile=208 | none       sides in pixels of the image; where small objects would have under 8 otherwise
    flips=none | mirror | both | all      by names of classes, and by places and shapes of objects
    zoom=full | crops | little | none     by how far sizes differ, and how small they are
    balance=0.1 | none    images of classes in under a tenth of the images come more often
    fit=false   default boxes, levels and anchors as they are, not as the objects need them
    width=0.375 of the backbone, cores=2: cpu only
    batch=8  lr=0.05 (for 16 images)  steps=  seed=0

``cpu`` trains a narrow ResNet-18 at 128 to 320 pixels on two cores; the default is Root-ResNet-34 (ssd) or
ResNet-50 at 320 to 640 pixels. What the command line sets under --config counts after all of it.

Source: ours
Paper: –
Ours: docs/small_data.md; ``python -m experiments.studies.own_folder`` measures it on many sets
Cost: the minutes, and compiling and evaluating besides
"""

import numpy as np

from experiments.common import pick
from experiments.common_dense import DETECTORS, fit_anchors, sized_model
from experiments.common_own import OWN, TILED, decide, fit_default_boxes, own_images, own_recipe
from jdet import build
from jdet.analysis.scales import small
from jdet.config import parse_arg
from jdet.parallel.mesh import split_cpu


def get_config(arg=""):
    arg = parse_arg(arg, **OWN | TILED, detector="ssd", width=0.375, cores=2)
    pick("detector", arg.detector, ("ssd", *DETECTORS))
    own = own_images(arg, "own_folder")
    c = own.config
    if arg.cpu:
        c.parallel.cpu_devices = arg.cores
        split_cpu(c)  # before the search for boxes, with which JAX starts
    c.input_size = decide(own, arg, *((128, 320) if arg.cpu else (320, 640)), quarters=True)
    c.augment.interpolation = "linear"
    if arg.detector == "ssd":
        body = dict(name="resnet", depth=18, width=arg.width)
        body = body if arg.cpu else dict(name="root_resnet", depth=34)
        least = float(np.clip(small(own.objects), 0.03, 0.2))
        c.model = build.group(
            "detector",
            "ssd",
            backbone=build.group("backbone", **body),
            neck=build.group("neck", "residual_extras", width=arg.width if arg.cpu else 1.0),
            taps=("c2", "c3", "c4", "c5")[: 4 if arg.cpu else 3],  # Root-ResNet ends at c4
            **dict(first_ratio=least, min_ratio=1.6 * least, max_ratio=0.9),
            **dict(norm="sync_batch", head_norm="sync_batch"),
        )
        if arg.fit:
            fit_default_boxes(c, own.source, same_size=True)
    else:
        c.model = sized_model(arg.detector, arg.cpu, fine=True)
        if arg.cpu:
            c.model.backbone.width = arg.width
        if arg.fit:
            fit_anchors(c, own.source)
    arg.batch = arg.batch or (8 if arg.cpu else 16)
    own_recipe(c, arg, own)
    c.optimizer.reference_batch = 16
    return c
