"""FCOS or ATSS on a hybrid or Swin backbone, on your own images: name a folder, the rest is read from it.

    E=experiments/swin_custom.py
    python -m jdet.main --config=$E:root=PATH --workdir=runs/mine
    python -m jdet.main --config=$E:root=PATH,cpu --workdir=runs/mine

PATH and what is derived from it are as in ``scratchdet_custom.py``, but images keep their proportions: the
short side has ``size`` pixels, the long one five thirds of that at most. Transformers from scratch need
many images and steps: with a few hundred, ``dense_custom.py`` gets further.

    default  C2-C2-T6-T2, short side 640 to 800
    cpu      two blocks a stage, a sixth of the width, windows of 4, pyramid of 64, short side 160 to 256
    detector=fcos | atss   backbone=c2c2t6t2, or as in transformers_table2.py
    size=  batch=  steps=  lr=0.0001 (cpu: 0.001)  seed=0

Source: ours; the models: "Training Object Detectors from Scratch" (CVPR 2022), Tian et al. 2019
Paper: –
Ours: depends on the data
Cost: depends on the data
"""

from experiments.common import pick
from experiments.common_dense import keep_proportions
from experiments.common_own import OWN, TILED, decide, own_images, own_recipe
from experiments.common_transformers import shrink, transformer_model
from jdet.config import parse_arg
from jdet.train import presets


def get_config(arg=""):
    arg = parse_arg(arg, **{**OWN, **TILED, "lr": 0.0}, detector="fcos", backbone="c2c2t6t2")
    pick("detector", arg.detector, ("fcos", "atss"))
    own = own_images(arg, "swin_custom")
    c, short = own.config, decide(own, arg, *((160, 256) if arg.cpu else (640, 800)))
    keep_proportions(c, short, long=short * 5 // 3)
    c.model = transformer_model(arg.detector, arg.backbone, "he")
    own_recipe(c, arg, own)
    steps = c.optimizer.warmup
    presets.apply(c.optimizer, "transformer")
    c.optimizer.warmup = steps
    # So small a network takes, and in so few steps needs, a larger rate.
    c.optimizer.lr = arg.lr or (1e-3 if arg.cpu else c.optimizer.lr)
    if arg.cpu:
        shrink(c)
    return c
