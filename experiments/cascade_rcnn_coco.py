"""Cascade R-CNN on COCO from random weights: do three heads find more exact boxes from scratch, too?

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/cascade_rcnn_coco.py --workdir=runs/cascade_rcnn_coco

Everything but the second stage is that of ``faster_rcnn_coco.py``, arguments included. Three heads learn
from RoIs of an IoU of 0.5, 0.6 and 0.7, each from the boxes of the one before; one box for all
classes.

    head=2fc | 4conv1fc          the published heads, or convolutions with norms
    schedule=6x | 3x | 2x | 20e | 1x | lsj100 | …   norm=group | sync_batch | batch   multiscale   warp
    depth=50  size=800  batch=16  lr=0.02  bn=16  seed=0  root=data

Source: Cai & Vasconcelos 2018; schedule as He et al. 2019, "Rethinking ImageNet Pre-training"
Paper: none from scratch at this setting; ImageNet-initialised, MMDetection: COCO val AP 40.3 (1x), 41.0
    (20e)
Ours: not run by us
Cost: 73 epochs of 118,287 images, 234 GMAC an image of 800×1280
"""

from experiments.common_rcnn import rcnn_model, rcnn_run, rcnn_settings


def get_config(arg=""):
    arg = rcnn_settings(arg, head="2fc")
    return rcnn_run(arg, rcnn_model("cascade_rcnn", arg.depth, arg.norm, arg.head, agnostic=True))
