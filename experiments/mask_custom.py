"""Mask R-CNN on your own images with masks: name a folder, the rest is read from the data.

    E=experiments/mask_custom.py
    python -m jdet.main --config=$E:root=PATH --workdir=runs/mine
    python -m jdet.main --config=$E:root=PATH,cpu --workdir=runs/mine

PATH and what is derived from it are as in ``scratchdet_custom.py``, but images keep their proportions and
labels have masks (docs/masks.md): polygons of any layout, run-length encodings in COCO's files, or a
VOC folder with ``SegmentationObject``. Anchors begin at a size that suits the smallest tenth of the
objects, or have the scale and aspect ratios with which those of no class go without; the start says so.

    detector=mask_rcnn | cascade_mask_rcnn
    norm=group | sync_batch | batch | none
    default  ResNet-50, pyramid and heads of 256 channels, short side 640 to 800
    cpu      ResNet-18 at half width, pyramid and heads of 64 channels, 128 RoIs, short side 256 to 320
    size=  batch=  steps=  lr=0.02  seed=0

Source: ours; the models: He et al. 2017, Cai & Vasconcelos 2018
Paper: –
Ours: depends on the data; ``mask_nuclei.py`` gives a feeling
Cost: depends on the data
"""

from experiments.common import pick
from experiments.common_dense import decay_without_norms, fit_anchors, keep_proportions
from experiments.common_own import OWN, decide, own_images, own_recipe
from experiments.common_rcnn import MASKS, sized_masks, with_masks
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, **OWN | dict(lr=0.02), detector="mask_rcnn", norm="group")
    pick("detector", arg.detector, MASKS)
    own = own_images(arg, "mask_custom")
    c, short = own.config, decide(own, arg, *((256, 320) if arg.cpu else (640, 800)))
    keep_proportions(c, short, long=short * 5 // 3)
    sized_masks(c, arg.detector, arg.norm, arg.cpu, own.smallest * short)
    if arg.fit:
        fit_anchors(c, own.source)
    own_recipe(with_masks(c), arg, own)
    decay_without_norms(c)
    return c
