"""Which pattern of stages, of which width, is best from scratch? Faster R-CNN until AP saturates.

    E=experiments/transformers_table3.py
    python -m jdet.main --config=$E:backbone=c2c2c14t5 --workdir=runs/table3_c2c2c14t5

    backbone=c2c2t12t4   Table 3: c2c2c16c6, c2c2c14t5, c2c2t12t4, c2t2t8t3, swin_t, about equal memory
                         Table 4: c2c2t36t4, c2c2t36t4_128, c2c2t36t4_192, against swin_s, swin_b, swin_l
    recipe=sota | sat | r24   calibrate=true   init=he | swin   batch=16  lr=0.0001  seed=0  root=data

Source: "Training Object Detectors from Scratch: An Empirical Study in the Era of Vision Transformer" (CVPR
    2022), Tables 3 and 4 (image sizes are not printed)
Paper: COCO val AP from scratch 42.3 (c2c2c16c6), 43.8 (c2c2c14t5), 45.8 (c2c2t12t4), 44.8 (c2t2t8t3), 43.4
    (swin_t); 48.6 (c2c2t36t4), 51.2 (128), 53.0 (192); pre-trained 43.5, 44.1, 45.3, 45.4, 45.5; 48.2
    (swin_s), 51.0 (swin_b), 52.9 (swin_l)
Ours: not run by us
Cost: until AP saturates, 300 epochs of 118,287 images at most; 246 GMAC (c2c2t12t4) an image of 800×1280
"""

from experiments.common_transformers import SCRATCH, study
from jdet.config import parse_arg


def get_config(arg=""):
    settings = {**SCRATCH, "recipe": "sota", "calibrate": True}
    arg = parse_arg(arg, **settings, backbone="c2c2t12t4")
    return study(arg, "faster_rcnn", arg.backbone)
