"""Cascade R-CNN on COCO by direct pre-training: small parts first, whole images afterwards.

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/direct_cascade_coco.py --workdir=runs/direct_cascade

Arguments, phases and search are those of ``direct_retinanet_coco.py``, at the rate of two-stage detectors.
``load`` knows the parts backbone, neck, rpn and box_head (Table 5).

    head=2fc | 4conv1fc     of the second stage, without norms

Source: Li et al. 2021, "Rethinking Training from Scratch for Object Detection", Table 8
Paper: COCO val AP 41.5 (P1x + 1x); ImageNet-initialised 1x: 40.3
Ours: not run by us
Cost: P1x: 88,000 steps of 64 images of 448×448, 80 GMAC each; 1x: 88,000 of 16, 244 GMAC
"""

from experiments.common_direct import direct_settings, two_stage_coco
from experiments.common_rcnn import rcnn_model


def get_config(arg=""):
    arg = direct_settings(arg, head="2fc")
    model = rcnn_model("cascade_rcnn", 50, "sync_batch", arg.head, agnostic=True)
    return two_stage_coco(arg, model)
