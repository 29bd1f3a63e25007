"""ATSS on COCO from random weights: does choosing positives by statistics need a pre-trained backbone?

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/atss_coco.py --workdir=runs/atss_coco

Everything but the detector is that of ``retinanet_coco.py``, arguments included: one square anchor of
eight strides at every place, nine candidates of every level for an object.

    schedule=6x | 3x | 2x | 1x   norm=group | sync_batch | batch   multiscale   warp
    depth=50  size=800  batch=16  lr=0.01  bn=16  seed=0  root=data

Source: Zhang et al. 2020; schedule as He et al. 2019, "Rethinking ImageNet Pre-training"
Paper: none from scratch at this setting; ImageNet-initialised, Zhang et al. 2020: COCO val AP 39.3 (1x);
    MMDetection: 39.4 (1x)
Ours: not run by us
Cost: 73 epochs of 118,287 images, 205 GMAC an image of 800×1280
"""

from experiments.common_dense import coco_recipe, coco_settings


def get_config(arg=""):
    return coco_recipe(coco_settings(arg), "atss")
