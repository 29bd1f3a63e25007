"""Can Mask R-CNN learn nuclei from 531 microscope images and random weights, and which norm does it need?

    python -m jdet.main --config=experiments/mask_nuclei.py:cpu --workdir=runs/mask_nuclei \
        --config.data.root=DSB2018

Nuclei of 3 to 60 pixels, up to 375 in an image: anchors of 8 to 64 pixels at strides of 4 to 32, RoIs up
to 28 pixels from the finest level, and 400 detections of an image, by which recall and AP are measured too.
All eight orientations are alike, and crops down to half the sides enlarge.

    norm=group | none | sync_batch   of backbone, pyramid and heads
    steps=  lr=0.02  seed=0

``:cpu``  ResNet-18 at half width, pyramid and heads of 64 channels, 128 RoIs of 400 proposals, 256-pixel
    input, batch 8, 1500 steps: for two CPU cores.
default   ResNet-50, 512-pixel input, batch 16, 6000 steps: for an accelerator.

Source: ours; the model: He et al. 2017
Paper: –
Ours: not run by us
Cost: 12,000 images of 256 pixels (``:cpu``), 96,000 of 512
"""

from experiments.common import pick
from experiments.common_dense import decay_without_norms
from experiments.common_rcnn import sized_masks, with_masks
from jdet import build
from jdet.config import get_defaults, parse_arg

SMALL = 0.0205
"""Tenth percentile of the nuclei's sizes, square roots of areas, relative to their images."""


def get_config(arg=""):
    arg = parse_arg(arg, cpu=False, norm="group", steps=0, lr=0.02, seed=0)
    pick("norm", arg.norm, ("group", "none", "sync_batch"))
    c = get_defaults()
    c.seed = arg.seed
    c.data.root = "data/dsb2018_nuclei"
    for role, split in (("train", "train"), ("eval", "val")):
        file = c.data.get_ref("root") + f"/annotations/instances_{split}.json"
        c.data[role] = build.group("source", "coco", annotation_file=file)
    c.augment.expand, c.augment.crop_scale, c.augment.crop_share = 0.0, 0.5, 0.25
    c.augment.flip_vertical = c.augment.rotate = 0.5
    c.augment.interpolation = "linear"
    c.data.max_boxes, c.data.mask_size, c.data.workers = 384, 28, 1
    c.input_size = 256 if arg.cpu else 512
    sized_masks(c, "mask_rcnn", arg.norm, arg.cpu, SMALL * c.input_size)
    c.train.batch_size = c.optimizer.reference_batch = 8 if arg.cpu else 16
    c.train.steps = arg.steps or (1500 if arg.cpu else 6000)
    c.train.eval_every = max(c.train.steps // 3, 1)
    c.train.ema = 0.995 if arg.cpu else 0.999
    c.optimizer.lr, c.optimizer.schedule = arg.lr, "cosine"
    c.optimizer.warmup = min(100, c.train.steps // 10)
    decay_without_norms(c)
    if arg.cpu:
        c.parallel.cpu_devices = 2
    c.model.max_detections = 400
    c.eval.coco.max_detections = (1, 100, 400)
    c.eval.batch_size = 8
    return with_masks(c)
