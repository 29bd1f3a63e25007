"""What do convolutions in the first stages do for a transformer trained from scratch? Three backbones.

    E=experiments/transformers_table2.py
    python -m jdet.main --config=$E:backbone=c2c2t12t4 --workdir=runs/table2_c2c2t12t4

    backbone=swin_t | c2c2t6t2 | c2c2t12t4, any other of docs/transformers.md, or a pattern (T2-T2-T6-T2)
    detector=fcos | faster_rcnn | atss   recipe=r24 | sat | sota   init=he | swin   calibrate
    batch=16  lr=0.0001  seed=0  root=data

The parameters and FLOPs that the paper prints stand beside the computed ones in docs/transformers.md: some
of its digits and one of its rows are misprinted.

Source: "Training Object Detectors from Scratch: An Empirical Study in the Era of Vision Transformer" (CVPR
    2022), Table 2; rate and length as in its section 5.2 and 3.1
Paper: COCO val AP of FCOS 23.6 (T2-T2-T6-T2), 18.8 (C2-C2-T6-T2), 29.5 (C2-C2-T12-T4), of Faster R-CNN
    30.3, 26.6, 37.9
Ours: not run by us
Cost: 24 epochs of 118,287 images; 211.6, 187.2 and 247.2 GMAC an image of 800×1280
    (Faster R-CNN 210.7, 186.3, 246.3)
"""

from experiments.common_transformers import SCRATCH, study
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, **SCRATCH, backbone="c2c2t12t4", detector="fcos")
    return study(arg, arg.detector, arg.backbone)
