"""Does gradient calibration of initial weights help a hybrid trained from scratch? With and without it.

    E=experiments/transformers_figure4.py
    python -m jdet.main --config=$E --workdir=runs/figure4_calibrated
    python -m jdet.main --config=$E:calibrate=false --workdir=runs/figure4_plain
    python -m jdet.main --config=$E:recipe=sat --workdir=runs/figure4_long

``python -m jdet.analysis.calibrate --config=$E`` shows what calibration does to the first gradients.

    backbone=c2c2t12t4, or as in transformers_table2.py   detector=fcos | faster_rcnn | atss
    recipe=r24 | sat | sota   init=he | swin   batch=16  lr=0.0001  seed=0  root=data

Source: "Training Object Detectors from Scratch: An Empirical Study in the Era of Vision Transformer" (CVPR
    2022), sections 4.3 and 4.4, Fig. 4a and 4b
Paper: Fig. 4a is curves only; COCO val AP 38.9 (FCOS), 45.8 (Faster R-CNN), calibrated, until it
    saturates
Ours: not run by us
Cost: 24 epochs of 118,287 images, 247 GMAC an image of 800×1280
"""

from experiments.common_transformers import SCRATCH, study
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, **{**SCRATCH, "calibrate": True}, backbone="c2c2t12t4", detector="fcos")
    return study(arg, arg.detector, arg.backbone)
