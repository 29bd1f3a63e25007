"""Cascade Mask R-CNN on COCO from random weights: do more exact boxes make more exact masks from scratch?

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/cascade_mask_rcnn_coco.py --workdir=runs/cascade_mask_rcnn_coco

Everything but the mask heads, one for each stage, is that of ``cascade_rcnn_coco.py``, arguments included.

    giou                  the heads of the Swin recipes: 4conv1fc, a box for every class, GIoU of weight 10
    head=2fc | 4conv1fc   schedule=6x | 3x | 2x | 20e | 1x | lsj100 | …   norm=group | sync_batch | batch
    multiscale  warp  depth=50  size=800  batch=16  lr=0.02  bn=16  seed=0  root=data

Source: Cai & Vasconcelos 2018; schedule as He et al. 2019, "Rethinking ImageNet Pre-training"; ``giou`` Liu
    et al. 2021, Swin Transformer
Paper: none from scratch at this setting; ImageNet-initialised, MMDetection: COCO val box and mask AP
    41.2, 35.9 (1x), 41.9, 36.5 (20e)
Ours: not run by us
Cost: 73 epochs of 118,287 images, 393 GMAC an image of 800×1280 (``2fc``)
"""

from experiments.common_rcnn import rcnn_model, rcnn_run, rcnn_settings, with_masks


def get_config(arg=""):
    arg = rcnn_settings(arg, head="", giou=False)
    fields = dict(box_loss="giou", box_weight=10.0) if arg.giou else dict(agnostic=True)
    head = arg.head or ("4conv1fc" if arg.giou else "2fc")
    model = rcnn_model("cascade_mask_rcnn", arg.depth, arg.norm, head, **fields)
    return with_masks(rcnn_run(arg, model))
