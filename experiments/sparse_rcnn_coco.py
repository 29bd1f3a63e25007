"""Sparse R-CNN on COCO from random weights: can proposals be learnt without a pre-trained backbone?

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/sparse_rcnn_coco.py --workdir=runs/sparse_rcnn_coco

ResNet-50, pyramid P2 to P5, norms in backbone and pyramid, all six stages. Users of the published code
report that SGD does not converge, larger rates diverge, one stage instead of six leaves 3 AP, and that
from scratch boxes hardly move and its 12 or 36 epochs end below 30 AP. So: AdamW with 1e-4 for 16 images,
decay 0.05 as in "Training Object Detectors from Scratch" (2022; the published code has 2.5e-5 and 1e-4 and
starts from ImageNet), gradients clipped to a norm of 1, 1000 steps of warm-up, 73 epochs with drops after
65 and 71. COCO's AP counts 100 detections of an image with either number of proposals.

    proposals=100 | 300
    schedule=6x | 3x | 2x | 20e | 1x   36, 24, 20 and 12 epochs, the usual drops
    norm=group                   sync_batch: statistics over bn=16 images; batch: those of a device
    multiscale                   the short side drawn from 0.8 of `size` to `size` in training
    warp                         images warped to squares of `size` pixels instead
    depth=50  size=800  batch=16  lr=0.0001  bn=16  seed=0  root=data

Source: Sun et al. 2021; github.com/PeizeSun/SparseR-CNN, issues 54, 68, 82, 94
Paper: COCO val AP, ImageNet-initialised: 42.8 (100 proposals), 45.0 (300), both 3x; from scratch none
Ours: not run by us
Cost: 73 epochs of 118,287 images, 150 GMAC an image of 800×1280 (166 with 300 proposals)
"""

from experiments.common_dense import coco_run, coco_settings
from experiments.common_rcnn import sparse_model, sparse_recipe


def get_config(arg=""):
    arg = coco_settings(arg, lr=1e-4, proposals=100)
    c = coco_run(arg, sparse_model(arg.depth, arg.norm, proposals=arg.proposals))
    sparse_recipe(c, arg.lr)
    c.optimizer.warmup = 1000
    return c
