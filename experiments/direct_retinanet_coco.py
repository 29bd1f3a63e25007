"""RetinaNet on COCO by direct pre-training: small parts first, whole images afterwards.

    python data/get_coco.py --root data
    python -m jdet.main --config=experiments/direct_retinanet_coco.py --workdir=runs/direct_retinanet

Phase 1 trains all of it from random weights on parts of `side` pixels, 64 a step, at a constant rate;
phase 2 is the usual schedule at 800 pixels with norms, stem and first stage fixed
(docs/direct_pretraining.md).
`python -m jdet.search_batch --config=… --memory=24GB` finds side and batch for another device.

    p=1            steps of phase 1 in 88,000, whatever the batch (length=fixed_samples: for 16 images)
    ft=1x | 2x     epochs of phase 2: 12, 24; ms: short sides of 640 to 800 in it
    side=448  batch=8  gpus=8    of phase 1, images of a device
    mode=fixed | affine | sync_batch      norms of phase 2
    form=fit | square | stitcher          parts of images that keep their proportions, or do not;
                                          stitcher: whole images, half as large
    load=backbone+neck                    parts of the model that phase 2 takes; all by default
    lr2            the rate of 0.02 in phase 2, as in the released code; else 0.01
    seed=0  root=data

Source: Li et al. 2021, "Rethinking Training from Scratch for Object Detection", Table 8
Paper: COCO val AP 37.1 (P1x + 1x); ImageNet-initialised 1x: 36.5
Ours: not run by us
Cost: P1x: 88,000 steps of 64 images of 448×448, 47 GMAC each; 1x: 88,000 of 16, 250 GMAC
"""

from experiments.common import coco
from experiments.common_dense import decay_without_norms, keep_proportions, plain_images
from experiments.common_direct import direct_settings, two_phases
from jdet import build


def get_config(arg=""):
    arg = direct_settings(arg, lr2=False)
    c = coco(arg.root, arg.seed)
    keep_proportions(c, 800, 1333)
    plain_images(c)
    c.model = build.group(
        "detector",
        "retinanet",
        backbone=build.group("backbone", "resnet", depth=50, kernel_init="kaiming"),
        neck=build.group("neck", "fpn", extra="conv_c5"),
        norm="sync_batch",
        head_norm="none",
    )
    decay_without_norms(c)
    two_phases(c, arg, lr=0.01, warmup=1000)
    if arg.lr2:
        c.phase.finetune.optimizer.lr = 0.02
    return c
