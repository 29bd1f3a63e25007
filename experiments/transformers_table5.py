"""How good does a strong detector get from scratch on a hybrid, against pre-trained backbones?

    E=experiments/transformers_table5.py
    python -m jdet.main --config=$E --workdir=runs/table5_atss
    python -m jdet.main --config=$E:detector=cascade_mask_rcnn --workdir=runs/table5_cascade
    python -m jdet.main --config=$E:detector=sparse_rcnn --workdir=runs/table5_sparse

    detector=atss | swin_reppoints_v2 | cascade_mask_rcnn
        | sparse_rcnn (300 proposals, gradients clipped to a norm of 1)
    backbone=c2c2t12t4 | swin_t | resnet50, or as in transformers_table2.py
    recipe=sota | sota-swin-aug | sat | r24   init=he | swin   batch=16  lr=0.0001  seed=0  root=data

The pre-trained rows are those of the Swin paper's recipe, ``recipe=sota-swin-aug`` (short sides of 480 to
800 and crops; of RepPointsV2 480 to 960, no crops); here every row is trained from scratch.

Source: "Training Object Detectors from Scratch: An Empirical Study in the Era of Vision Transformer" (CVPR
    2022), Table 5
Paper: COCO val AP, AP50, AP75 from scratch 47.5, 66.7, 51.6 (C2-C2-T12-T4); pre-trained 47.2, 66.5, 51.3
    (Swin-T), 43.5, 61.9, 47.0 (ResNet-50); Cascade Mask R-CNN 51.0, 69.8, 55.3, pre-trained 50.5, 69.3,
    54.9 and 46.3, 64.3, 50.5; Sparse R-CNN 48.2, 67.4, 52.6, pre-trained 47.9, 67.3, 52.3 and 44.5, 63.4,
    48.2; RepPointsV2 50.4, 68.9, 54.5, pre-trained 50.0, 68.5, 54.2 and 46.5, 64.6, 50.3
Ours: not run by us
Cost: until AP saturates, 300 epochs of 118,287 images at most; 247 GMAC an image of 800×1280 (ATSS), 208
    (Sparse R-CNN), 315 (RepPointsV2)
"""

from experiments.common import pick
from experiments.common_transformers import SCRATCH, study
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, **{**SCRATCH, "recipe": "sota"}, backbone="c2c2t12t4", detector="atss")
    detectors = ("atss", "swin_reppoints_v2", "cascade_mask_rcnn", "sparse_rcnn")
    pick("detector", arg.detector, detectors)
    return study(arg, arg.detector, arg.backbone)
