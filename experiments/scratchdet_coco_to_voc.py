"""What does training on COCO add to ScratchDet on VOC? The COCO run, fine-tuned; no ImageNet anywhere.

    python -m jdet.main --config=experiments/scratchdet_coco.py --workdir=runs/scratchdet_coco
    python -m jdet.main --config=experiments/scratchdet_coco_to_voc.py --workdir=runs/coco_to_voc
    … --config=experiments/scratchdet_coco_to_voc.py:source=RUN,train=07++12 --workdir=…

All of the COCO detector is loaded. Of its 80 classes the outputs of VOC's 20 are kept, found by name as in
the converter script of SSD, so that it starts as a VOC detector. The default boxes stay COCO's, whose
offsets the box layers have learnt. How the paper fine-tunes is not published: lr 0.001 is DSOD's
(``dsod_voc.py:coco=RUN`` is its own fine-tuning), drops at 60 and 90 % of the run are our choice.

    source=runs/scratchdet_coco  steps=100000  lr=0.001  batch=128  backbone=root_resnet34
    train=07+12  test=07test  root=data  seed=0

Source: Zhu et al. 2019, Table 3
Paper: VOC07 mAP 84.0, against 80.4 without COCO; VOC12 test 82.1 with train=07++12
Ours: not run by us
Cost: the COCO run, then about 773 epochs of 16,551 images, 33.3 GMAC an image
"""

from experiments import scratchdet_voc
from jdet.config import parse_arg


def get_config(arg=""):
    arg = parse_arg(
        arg,
        source="runs/scratchdet_coco",
        root="data",
        train="07+12",
        test="07test",
        backbone="root_resnet34",
        lr=1e-3,
        batch=128,
        steps=100_000,
        seed=0,
    )
    same = ("root", "train", "test", "backbone", "lr", "batch", "seed")
    c = scratchdet_voc.get_config(",".join(f"{key}={arg[key]}" for key in same))
    c.init_from.path = arg.source
    c.model.first_ratio, c.model.min_ratio = 0.07, 0.15
    c.train.steps = arg.steps
    c.optimizer.boundaries = (0.6, 0.9)
    return c
