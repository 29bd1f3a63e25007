"""Mask R-CNN on COCO by direct pre-training: small parts first, whole images afterwards.

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/direct_mask_coco.py:p=3 --workdir=runs/direct_mask

Arguments, phases and search are those of ``direct_retinanet_coco.py``, at the rate of two-stage detectors;
with them every row of the paper's Tables 1 to 6 that is pre-trained directly:

    side=320 | 448 | 640   batch=2 | 4 | 8, p=3          Table 1
    mode=affine | sync_batch | fixed, ft=2x              Table 2
    p=1 … 4, ft=1x | 2x                                  Tables 3 and 4
    load=backbone+neck+rpn+box_head+mask_head, p=4       Table 5, from the left
    ft=2x, ms                                            Table 6
    data=0.1                                             a tenth of the images
    head=4conv1fc | 2fc                                  of the second stage, without norms

From scratch without the first phase: ``mask_rcnn_coco.py``.

Source: Li et al. 2021, "Rethinking Training from Scratch for Object Detection", Tables 1 to 6
Paper: COCO val box and mask AP 40.0, 35.8 (P1x + 1x), 41.5, 37.0 (P3x + 1x); ImageNet-initialised, two
    layers in its head: 38.2, 34.7 (1x); from scratch with group norms 41.1, 36.5 (6x)
Ours: not run by us
Cost: P1x: 88,000 steps of 64 images of 448×448, 219 GMAC each; 1x: 88,000 of 16, 383 GMAC
"""

from experiments.common_direct import direct_settings, two_stage_coco
from experiments.common_rcnn import rcnn_model, with_masks


def get_config(arg=""):
    arg = direct_settings(arg, head="4conv1fc", data=1.0)
    c = two_stage_coco(arg, rcnn_model("mask_rcnn", 50, "sync_batch", arg.head))
    c.data.share = arg.data
    return with_masks(c)
