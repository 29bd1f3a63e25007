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
    backbone=swin_t, p=1 | 3     Swin-T by AdamW         Table 8, the released models
    tenth                        60,000 + 30,000 steps on a tenth of the images, Table 9
    p=2                                                  Table 10, with ``direct_dropblock_coco.py``
    data=0.1                     share of the images     head=4conv1fc | 2fc without norms

From scratch without the first phase: ``mask_rcnn_coco.py``.

Source: Li et al. 2021, "Rethinking Training from Scratch for Object Detection", Tables 1 to 6, 8 to 10
Paper: COCO val box and mask AP 40.0, 35.8 (P1x + 1x), 41.5, 37.0 (P3x + 1x); ImageNet-initialised, two
    layers in its head: 38.2, 34.7 (1x); from scratch with group norms 41.1, 36.5 (6x); Swin-T 45.0, 40.5
    (P1x + 1x), 46.9, 41.9 (P3x + 1x), ImageNet-initialised 43.8, 39.6; on a tenth of COCO box AP 23.2,
    ImageNet-initialised 22.1
Ours: not run by us
Cost: P1x: 88,000 steps of 64 images of 448×448, 219 GMAC each; 1x: 88,000 of 16, 383 GMAC
"""

from experiments.common import pick
from experiments.common_direct import direct_settings, tenth_of_coco, two_stage_coco, with_swin
from experiments.common_rcnn import rcnn_model, with_masks
from jdet.types import ConfigError


def get_config(arg=""):
    arg = direct_settings(arg, head="4conv1fc", backbone="resnet50", data=1.0, tenth=False)
    pick("backbone", arg.backbone, ("resnet50", "swin_t"))
    if arg.tenth and (arg.p, arg.ft, arg.data) != (1, "1x", 1.0):
        raise ConfigError(
            "tenth has its own images and lengths; leave out p, ft and data, or tenth"
        )
    c = two_stage_coco(arg, rcnn_model("mask_rcnn", 50, "sync_batch", arg.head))
    c.data.share = arg.data
    if arg.tenth:
        tenth_of_coco(c)
    if arg.backbone == "swin_t":
        with_swin(c)
    return with_masks(c)
