"""RepPointsV2 on COCO from random weights: do points and corners gain from scratch what they gain else?

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/reppoints_v2_coco.py --workdir=runs/reppoints_v2_coco

Everything but the detector is that of ``retinanet_coco.py``, arguments included; ``multiscale`` draws
short sides of 480 to 960 pixels for 800. As published for ResNet-50: smooth L1 loss of the corners of
boxes, focal loss, a pyramid with norms whose P6 is made of C5.

    giou    boxes by GIoU, with weights of 1 and 2
    schedule=6x | 3x | 2x | 1x   norm=group | sync_batch | batch   multiscale   warp
    depth=50  size=800  batch=16  lr=0.01  bn=16  seed=0  root=data

Source: Chen et al. 2020, "RepPoints V2: Verification Meets Regression for Object Detection", and its
    authors' code; schedule as He et al. 2019, "Rethinking ImageNet Pre-training"
Paper: none from scratch at this setting; ImageNet-initialised, its authors' code: COCO val AP 40.9 (1x),
    41.1 (1x, giou), 43.9 (2x, multi-scale)
Ours: not run by us
Cost: 73 epochs of 118,287 images, 254 GMAC an image of 800×1280
"""

from experiments.common_dense import coco_recipe, coco_settings


def get_config(arg=""):
    arg = coco_settings(arg, giou=False)
    giou = dict(box_loss="giou", initial_weight=1.0, box_weight=2.0)
    c = coco_recipe(arg, "reppoints_v2", **(giou if arg.giou else {}))
    if arg.multiscale:
        c.resize.short, c.resize.test_short = (arg.size * 3 // 5, arg.size * 6 // 5), arg.size
    return c
