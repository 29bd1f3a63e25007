"""RetinaNet on COCO from random weights: does a dense detector need a pre-trained backbone?

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/retinanet_coco.py --workdir=runs/retinanet_coco

ResNet-50, pyramid P3 to P7 and both towers, all with norms, nothing frozen. Recipe of the from-scratch
runs of MMDetection's zoo (`6x`: 73 epochs, drops after 65 and 71, warm-up of 500 steps from a tenth, decay
1e-4, none on norms) at RetinaNet's rate of 0.01 for 16 images; other batches scale it.

Images keep their proportions: `size` pixels the short side, five thirds of that the long one at most, in
inputs of three shapes.

    schedule=6x | 3x | 2x | 1x   36, 24 and 12 epochs, with the usual drops, warm-up from a thousandth
    norm=group                   sync_batch: statistics over bn=16 images; batch: those of a device
    multiscale                   the short side drawn from 0.8 of `size` to `size` in training
    warp                         images warped to squares of `size` pixels instead
    depth=50  size=800  batch=16  lr=0.01  bn=16  seed=0  root=data

Source: Lin et al. 2017b; schedule as He et al. 2019, "Rethinking ImageNet Pre-training"
Paper: none from scratch at this setting; ImageNet-initialised, MMDetection: COCO val AP 36.5 (1x), 37.4
    (2x)
Ours: not run by us
Cost: 73 epochs of 118,287 images, 239 GMAC an image of 800×1280
"""

from experiments.common_dense import coco_recipe, coco_settings


def get_config(arg=""):
    return coco_recipe(coco_settings(arg), "retinanet")
