"""Mask R-CNN on COCO from random weights: what do masks gain from longer training instead of ImageNet?

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/mask_rcnn_coco.py --workdir=runs/mask_rcnn_coco

Everything but the mask head is that of ``faster_rcnn_coco.py``, arguments included: four convolutions with
norms at 14×14, doubled to masks of 28×28 of every class.

    head=4conv1fc | 2fc   schedule=6x | 3x | 2x | 20e | 1x | lsj100 | …   norm=group | sync_batch | batch
    multiscale  warp  depth=50  size=800  batch=16  lr=0.02  bn=16  seed=0  root=data

Source: He et al. 2017; schedule and head as He et al. 2019, "Rethinking ImageNet Pre-training"
Paper: MMDetection's zoo: COCO val box and mask AP 41.2, 37.4 (6x, group norms, from scratch), 44.7, 40.4
    (lsj100, statistics over 64 images, from scratch); ImageNet-initialised 38.2, 34.7 (1x)
Ours: not run by us
Cost: 73 epochs of 118,287 images, 374 GMAC an image of 800×1280 (259 with 2fc)
"""

from experiments.common_rcnn import rcnn_model, rcnn_run, rcnn_settings, with_masks


def get_config(arg=""):
    arg = rcnn_settings(arg, head="4conv1fc")
    return with_masks(rcnn_run(arg, rcnn_model("mask_rcnn", arg.depth, arg.norm, arg.head)))
