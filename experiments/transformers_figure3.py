"""Do proposal-free design and dense connections, which let DSOD train from scratch, help a transformer too?

    E=experiments/transformers_figure3.py
    python -m jdet.main --config=$E --workdir=runs/figure3_dsod
    python -m jdet.main --config=$E:arm=plain --workdir=runs/figure3_plain
    python -m jdet.main --config=$E:arm=plain,recipe=sat --workdir=runs/figure3_long

    arm=dsod    FCOS on Swin-T with a stem of convolutions, links from all earlier stages, half of every
                level of the neck reused (the paper says this much; the layers are DSOD's)
    arm=plain   FCOS on Swin-T; with detector=faster_rcnn the curves of Fig. 3b, by RoIPool
    detector=fcos | faster_rcnn | atss   recipe=r24 | sat | sota   init=he | swin   calibrate
    batch=16  lr=0.0001  seed=0  root=data

Source: "Training Object Detectors from Scratch: An Empirical Study in the Era of Vision Transformer" (CVPR
    2022), sections 3.1 and 3.2, Fig. 3a (24 epochs), 3b and 3c (until AP saturates)
Paper: curves only; COCO val AP after 24 epochs 38.8 pre-trained, 23.6 (Table 2) from scratch, with the
    modification between the two
Ours: not run by us
Cost: 24 epochs of 118,287 images, 212 GMAC an image of 800×1280
"""

from experiments.common import pick
from experiments.common_transformers import SCRATCH, study
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, **SCRATCH, arm="dsod", detector="fcos")
    pick("arm", arg.arm, ("dsod", "plain"))
    if arg.arm == "plain":
        pool = dict(roi_op="pool") if arg.detector == "faster_rcnn" else {}
        return study(arg, arg.detector, "swin_t", **pool)
    pick("detector", arg.detector, ("fcos", "atss"))
    return study(arg, arg.detector, "swin_t_dsod", dense_neck=True)
