"""Does RoIAlign instead of RoIPool help a transformer that is trained from scratch? Faster R-CNN on Swin-T.

    E=experiments/transformers_table1.py
    python -m jdet.main --config=$E --workdir=runs/table1_align
    python -m jdet.main --config=$E:roi=pool --workdir=runs/table1_pool

    roi=align | pool   backbone=swin_t, or as in transformers_table2.py   recipe=r24 | sat | sota
    init=he | swin   calibrate   batch=16  lr=0.0001  seed=0  root=data

Source: "Training Object Detectors from Scratch: An Empirical Study in the Era of Vision Transformer" (CVPR
    2022), Table 1
Paper: COCO val AP, S, M, L from scratch 30.3, 15.5, 33.0, 41.6 (align), 26.6, 13.0, 29.0, 37.7 (pool);
    pre-trained AP 42.5 and 42.1
Ours: not run by us
Cost: 24 epochs of 118,287 images, 211 GMAC an image of 800×1280
"""

from experiments.common import pick
from experiments.common_transformers import SCRATCH, study
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, **SCRATCH, backbone="swin_t", roi="align")
    pick("roi", arg.roi, ("align", "pool"))
    return study(arg, "faster_rcnn", arg.backbone, roi_op=arg.roi)
