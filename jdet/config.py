"""Default config groups, the ``file.py:key=value`` argument parser, validation, derived numbers.

A config holds plain values and names only; ``jdet.build`` turns ``{"name": …, **fields}`` groups
into objects. ``get_defaults()`` is complete: every key the program reads stands here with its
default, so a typing error in an experiment or on the command line is an unknown key.
"""

from __future__ import annotations

from ml_collections import ConfigDict


def get_defaults() -> ConfigDict:
    """The complete default config; experiments start from it and assign."""
    c = ConfigDict()
    c.seed = 0
    c.precision = "float32"  # activations: "float32" | "bfloat16"
    c.input_size = 300  # pixels, side of the square network input

    c.data = data = ConfigDict()
    data.root = "data"  # folder of the data set, handed to the sources below by experiments
    data.train = ConfigDict({"name": "shapes"}, allow_dotted_keys=False)
    data.eval = ConfigDict({"name": "shapes"}, allow_dotted_keys=False)
    data.max_boxes = 64  # objects a picture can carry; more is counted and warned about
    data.on_error = "raise"  # unreadable picture: "raise" | "skip" (counted and listed)
    data.workers = 0  # grain worker processes; 0 decodes in threads of this process
    data.threads = 2  # reader threads per process
    data.prefetch = 4  # batches made ahead of the step

    c.augment = augment = ConfigDict()
    augment.name = "ssd"  # "ssd" | "none"
    augment.photometric = 0.5  # probability of each photometric operation
    augment.expand = 0.5  # probability of zooming out
    augment.expand_ratio = 4.0  # largest zoom-out
    augment.crop = True  # the seven-sampler batch crop
    augment.crop_scale = 0.3  # smallest relative side of a crop
    augment.flip = 0.5  # probability of a horizontal flip
    augment.interpolation = "random"  # "random" (five kinds) | "linear" | "area" | …
    augment.mean = (123.0, 117.0, 104.0)  # RGB fill of the zoomed-out canvas

    c.model = ConfigDict({"name": "ssd"}, allow_dotted_keys=False)

    c.train = train = ConfigDict()
    train.batch_size = 32  # pictures per optimiser step, over all devices
    train.steps = 0  # optimiser steps; 0: from epochs
    train.epochs = 0.0
    train.accumulation = 1  # micro-batches per optimiser step
    train.loss_norm = "global"  # "global" | "per_device"
    train.remat = False  # rematerialise backbone stages
    train.ema = 0.0  # decay of the moving average of weights; 0: off
    train.log_every = 20  # steps
    train.eval_every = 0  # steps; 0: only at the end
    train.save_every = 0  # steps; 0: a tenth of the run
    train.keep = 2  # checkpoints kept besides the best
    train.eval_at_start = False

    c.optimizer = optimizer = ConfigDict()
    optimizer.lr = 0.05  # at ``reference_batch`` pictures per step
    optimizer.reference_batch = 128  # linear scaling: peak = lr · batch_size / reference_batch; 0: none
    optimizer.momentum = 0.9
    optimizer.nesterov = False
    optimizer.weight_decay = 5e-4
    optimizer.decay_mask = "caffe"  # "caffe": no decay on biases and head norms | "all" | "kernels"
    optimizer.bias_lr = 2.0  # learning-rate multiplier of convolution biases
    optimizer.clip_norm = 0.0  # global gradient norm; 0: none
    optimizer.schedule = "step"  # "step" | "cosine" | "constant"
    optimizer.boundaries = (0.45, 0.75, 0.95)  # of the run where the lr drops (step), or steps (>1)
    optimizer.decay = 0.1  # factor of each drop
    optimizer.warmup = 0  # steps of linear warm-up
    optimizer.warmup_start = 0.1  # of the peak, where the warm-up begins

    c.eval = evaluation = ConfigDict()
    evaluation.batch_size = 32
    evaluation.metrics = ("voc",)  # of "voc", "coco"
    evaluation.pictures = 8  # pictures drawn beside the truth
    evaluation.score_drawn = 0.5  # lowest score drawn
    evaluation.use_ema = True  # evaluate the moving average where there is one
    evaluation.max_pictures = 0  # 0: all

    c.parallel = parallel = ConfigDict()
    parallel.devices = 0  # 0: all
    parallel.bn_group_size = 0  # pictures that share BatchNorm statistics under sync_batch; 0: all
    return c
