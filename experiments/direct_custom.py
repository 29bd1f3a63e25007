"""Direct pre-training on your own images: name a folder, the rest is read from the data.

    E=experiments/direct_custom.py
    python -m jdet.main --config=$E:root=PATH --workdir=runs/mine
    python -m jdet.main --config=$E:root=PATH,detector=fcos,cpu --workdir=runs/mine

Small parts of the images first, whole ones afterwards; both phases together see as many pixels as
``dense_custom.py`` does with the same arguments, where PATH and what is derived from it are explained.
`python -m jdet.search_batch --config=$E:root=PATH` finds side and batch for the memory at hand.

    detector=retinanet | fcos | atss
    default  ResNet-50, short side 640 to 800; parts of 352 pixels, 128 a step
    cpu      ResNet-18, short side 160 to 320; parts of 96 pixels, 64 a step
    side=  pre_batch=       of the parts
    share=0.5               of the pixels are seen in parts; pre= steps of that phase instead
    mode=fixed | affine | sync_batch      norms of phase 2
    load=backbone+neck      parts of the model that phase 2 takes; all by default
    size=  batch=  steps=  lr=0.01  seed=0

Source: ours, after Li et al. 2021, "Rethinking Training from Scratch for Object Detection"
Paper: on VOC (16,551 images) it stays behind ImageNet weights, 72.0 mAP to 79.5 (Table 9)
Ours: depends on the data; ``direct_deeppcb.py`` compares it with training from scratch
Cost: depends on the data
"""

from ml_collections import ConfigDict

from experiments.common import pick
from experiments.common_dense import (
    DETECTORS,
    EXTRA,
    decay_without_norms,
    fit_anchors,
    keep_proportions,
)
from experiments.common_direct import MODES, small_model, small_phases
from experiments.common_own import OWN, decide, own_images, own_recipe
from jdet import build
from jdet.config import parse_arg

DIRECT = dict(side=0, pre_batch=0, share=0.5, pre=0, mode="fixed", load="", detector="retinanet")


def get_config(arg=""):
    arg = parse_arg(arg, **{**OWN, "lr": 0.01}, **DIRECT)
    pick("detector", arg.detector, DETECTORS)
    pick("mode", arg.mode, MODES)
    own = own_images(arg, "direct_custom")
    c, short = own.config, decide(own, arg, *((160, 320) if arg.cpu else (640, 800)))
    keep_proportions(c, short, long=short * 5 // 3)
    c.model = small_model(arg.detector)
    if not arg.cpu:
        body = build.group("backbone", "resnet", depth=50, kernel_init="kaiming")
        neck = build.group("neck", "fpn", **EXTRA[arg.detector])
        plain = dict(norm="sync_batch", head_norm="none")
        c.model = build.group("detector", arg.detector, backbone=body, neck=neck, **plain)
    if arg.fit:
        fit_anchors(c, own.source)
    own_recipe(c, arg, own)
    decay_without_norms(c)
    small = dict(mode=arg.mode, load=arg.load, share=arg.share, pre=arg.pre)
    small["side"] = arg.side or max(round(short * 0.56 / 32), 1) * 32
    small["batch"] = arg.pre_batch or 4 * c.train.batch_size
    return small_phases(c, ConfigDict(small), c.train.steps)
