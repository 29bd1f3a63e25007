"""FCOS on COCO from random weights: does a detector without anchors need a pre-trained backbone?

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/fcos_coco.py --workdir=runs/fcos_coco

Everything but the detector is that of ``retinanet_coco.py``, arguments included. The detector has the
improvements of Tian et al. 2020: centre sampling, distances in strides, GIoU, centre-ness beside the box.

    plain                        the first publication: whole objects, distances by exp, IoU loss,
                                 centre-ness beside the classes, no biases in the towers
    schedule=6x | 3x | 2x | 1x   norm=group | sync_batch | batch   multiscale   warp
    depth=50  size=800  batch=16  lr=0.01  bn=16  seed=0  root=data

Source: Tian et al. 2019 and 2020; schedule as He et al. 2019, "Rethinking ImageNet Pre-training"
Paper: none from scratch at this setting; ImageNet-initialised, MMDetection: COCO val AP 36.6
    (plain, 1x), 38.7 (1x)
Ours: not run by us
Cost: 73 epochs of 118,287 images, 205 GMAC an image of 800×1280
"""

from experiments.common_dense import FCOS_PLAIN, coco_recipe, coco_settings


def get_config(arg=""):
    arg = coco_settings(arg, plain=False)
    return coco_recipe(arg, "fcos", **(FCOS_PLAIN if arg.plain else {}))
