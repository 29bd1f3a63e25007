"""Default config groups, the ``file.py:key=value`` argument parser, validation, derived numbers.

A config holds plain values and names only; ``jdet.build`` turns ``{"name": …, **fields}`` groups
into objects. ``get_defaults()`` is complete: every key the program reads stands here with its
default, so a typing error in an experiment or on the command line is an unknown key.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jdet.data.transforms.ssd import SSDAugment
from jdet.types import ConfigError, nearest


def get_defaults() -> ConfigDict:
    """The complete default config; experiments start from it and assign."""
    c = ConfigDict()
    c.seed = 0
    c.class_names = ()  # filled in from the training data; given: the data must have these
    c.category_ids = ()  # the data set's own id of each class, filled in likewise; else 1 … K
    c.precision = "float32"  # activations: "float32" | "bfloat16"
    c.input_size = 300  # pixels, side of the square network input

    # How images become network inputs: "warp", to the square | "keep_ratio", docs/input_sizes.md.
    c.resize = ConfigDict({"name": "warp"})

    c.data = data = ConfigDict()
    data.root = "data"  # folder of the data set, handed to the sources below by experiments
    data.train = ConfigDict({"name": "shapes"})
    data.eval = ConfigDict({"name": "shapes"})
    data.holdout = 0  # n: evaluate on about every n-th image of data.train, not on data.eval
    data.max_boxes = 64  # objects an image can carry; more is counted and warned about
    data.on_error = "raise"  # unreadable image: "raise" | "skip" (counted and listed)
    data.workers = 0  # grain worker processes; 0 decodes in threads of this process
    data.threads = 2  # reader threads per process
    data.prefetch = 4  # batches made ahead of the step

    # What training does to images: "ssd" | "none"; jdet.data.transforms.ssd says what its keys mean.
    augment = {field.name: field.default for field in dataclasses.fields(SSDAugment)}
    c.augment = ConfigDict({"name": "ssd", **augment})

    c.model = ConfigDict({"name": "ssd"})

    c.init_from = init_from = ConfigDict()
    init_from.path = ""  # run folder or checkpoint whose weights to start from; "": random weights
    init_from.step = "latest"  # its checkpoint: "latest", "best" or a number
    init_from.weights = "ema"  # "ema" (where the run has one) | "raw"
    init_from.include = (".*",)  # regexes of whole parameter paths to load, such as "backbone/.*"
    init_from.exclude = ()  # regexes of paths to leave at their initial values after all
    init_from.class_map = "names"  # class layers: "names" (by class name) | "none" (by position)
    init_from.strict = True  # parameters must be there in this shape; False: left, reported

    c.train = train = ConfigDict()
    train.batch_size = 32  # images per optimiser step, over all devices
    train.steps = 0  # optimiser steps; 0: from epochs
    train.epochs = 0.0
    train.accumulation = 1  # micro-batches per optimiser step
    train.loss_norm = "global"  # "global" | "per_device"
    train.remat = "none"  # what the backward pass computes again, to save memory: "none" | "convs"
    # (norms, ReLUs, pools) | "full" (blocks) | "stages" (whole stages); docs/large_batches.md
    train.remat_parts = ()  # where, such as ("stem", "c2", "neck"); empty: everywhere
    train.sample_stats = False  # log ratios of positive to negative samples (docs/large_batches.md)
    train.ema = 0.0  # decay of the moving average of weights and statistics; 0: off
    train.log_every = 20  # steps
    train.eval_every = 0  # steps; 0: only at the end
    train.save_every = 0  # steps; 0: a tenth of the run
    train.keep = 2  # checkpoints kept besides the best
    train.best_metric = ""  # metric that picks the best checkpoint; "": the first of the evaluation
    train.eval_at_start = False
    # Reduces the learning rate and then ends the run when best_metric saturates.
    train.saturation = saturation = ConfigDict()
    saturation.patience = 0  # evaluations without improvement before either; 0: off
    saturation.delta = 0.0  # an improvement is more than this above the best so far
    saturation.reductions = 1  # of the learning rate before the run ends
    saturation.factor = 0.1  # of each reduction

    c.optimizer = optimizer = ConfigDict()
    optimizer.name = "sgd"  # "sgd" (momentum in Caffe's order) | "adamw"
    optimizer.lr = 0.05  # at ``reference_batch`` images per step
    optimizer.reference_batch = 128  # peak lr = lr · batch_size / reference_batch; 0: lr as it is
    optimizer.momentum = 0.9  # of sgd alone
    optimizer.nesterov = False  # of sgd alone
    optimizer.beta1 = 0.9  # of adamw alone: decay of the mean of gradients
    optimizer.beta2 = 0.999  # of adamw alone: of their squares
    optimizer.epsilon = 1e-8  # of adamw alone, beside the root of the squares
    optimizer.weight_decay = 5e-4  # adamw: decoupled, times the learning rate; recipes have 0.05
    optimizer.decay_mask = "caffe"  # "caffe": none on biases and head norms | "all" | "kernels" |
    # "no_norm_decay": all but norms, biases and tables of positions
    optimizer.rules = ()  # (path regex, lr factor, decay factor), tried before those of decay_mask;
    # lr factor 0: frozen
    optimizer.bias_lr = 2.0  # learning-rate multiplier of convolution biases
    optimizer.clip_norm = 0.0  # global gradient norm; 0: none
    optimizer.schedule = "step"  # "step" | "cosine" | "constant" | "normal" | "long" (MegDet's
    # drops by epochs: 8, 10 of 11 and 11, 14, 17 of 18; train.epochs stretches them, 0: as they are)
    optimizer.boundaries = (0.45, 0.75, 0.95)  # of the run where the lr drops (step), or steps (>1)
    optimizer.decay = 0.1  # factor of each drop
    optimizer.warmup = 0  # steps of linear warm-up
    optimizer.warmup_epochs = 0.0  # the warm-up has at least so many epochs
    optimizer.warmup_start = 0.1  # of the peak, where the warm-up begins
    optimizer.warmup_lr = 0.0  # rate where it begins (MegDet: the small batch's); 0: warmup_start

    c.eval = evaluation = ConfigDict()
    evaluation.batch_size = 32
    evaluation.metrics = ("voc",)  # evaluators: "voc", "coco" (boxes), "coco_segm" (masks), or your
    # own as "module:Class", which is made from the class names; the first has the main metric
    evaluation.images = 8  # images drawn beside the ground truth
    evaluation.score_drawn = 0.5  # lowest score drawn
    evaluation.use_ema = True  # evaluate the moving average where there is one
    evaluation.max_images = 0  # 0: all
    evaluation.precise_bn = 0  # training batches over which statistics of batch norms are measured
    # again with the weights to evaluate; 0: the running ones

    evaluation.tta = tta = ConfigDict()  # multi-scale testing, after the plain evaluation
    tta.preset = "none"  # "none" | "flip" | "voc" | "coco" (RefineDet's passes) | "custom"
    tta.passes = ()  # custom: (long side, short side, flip, above, below); see jdet.evaluation.tta
    tta.merge = ""  # "voting" | "soft_voting" | "nms"; "": the preset's, custom: voting
    tta.iou_threshold = 0.45  # overlap from which boxes of a class are merged
    tta.pixel_offset = 1.0  # added to widths and heights for it: 1 inclusive pixels, 0 continuous
    tta.score_threshold = 0.01  # soft_voting: lowest score of a box kept beside the vote
    tta.max_detections = 0  # of an image after merging; 0: as many as without

    c.landscape = landscape = ConfigDict()  # records of the loss surface (docs/landscape.md)
    landscape.every = 0  # steps between records of loss and gradient norms; 0: none
    landscape.depth = 1  # gradient norms of modules down to this level; 0: of the whole alone
    landscape.probe_every = 0  # steps between probes along the gradient, whole records; 0: none
    landscape.probe_steps = (0.5, 1.0, 2.0, 4.0)  # lengths of a probe's steps, in learning rates

    c.parallel = parallel = ConfigDict()
    parallel.devices = 0  # 0: all
    parallel.cpu_devices = 1  # devices a CPU counts as; small networks run faster on two
    parallel.bn_group_size = 0  # images that share BatchNorm statistics under sync_batch; 0: all
    return c


def parse_arg(arg: str, **defaults: Any) -> ConfigDict:
    """Reads the part after the colon of ``--config=experiments/x.py:cpu,lr=0.01``.

    ``key=value`` sets a key, a bare ``key`` sets a boolean one. A value takes the type of its default.

    Args:
        arg: comma-separated settings; may be empty.
        **defaults: every key that exists, with its default.

    Raises:
        ConfigError: unknown key or a value of another type.
    """
    settings = ConfigDict(defaults)
    for item in filter(None, (part.strip() for part in (arg or "").split(","))):
        key, equals, text = item.partition("=")
        if key not in defaults:
            raise ConfigError(
                f"experiment argument {key!r} does not exist{nearest(key, defaults)}; "
                f"there are {', '.join(f'{k}={v}' for k, v in defaults.items())}"
            )
        kind = type(defaults[key])
        if not equals:
            text = "true" if kind is bool else ""
        try:
            settings[key] = _BOOLEANS[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"experiment argument {item!r}: {key} takes a {kind.__name__}, such as {defaults[key]}"
            ) from error
    return settings


_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


CLASS_GROUPS = (
    "config.model",
    "config.resize",
    "config.augment",
    "config.data.train",
    "config.data.eval",
)
"""Groups that name a class, which knows its own fields and checks them (see ``jdet.build``)."""

CHOICES = {
    "precision": ("float32", "bfloat16"),
    "data.on_error": ("raise", "skip"),
    "init_from.weights": ("ema", "raw"),
    "init_from.class_map": ("names", "none"),
    "train.loss_norm": ("global", "per_device"),
    "train.remat": ("none", "convs", "full", "stages"),
    "optimizer.name": ("sgd", "adamw"),
    "optimizer.schedule": ("step", "cosine", "constant", "normal", "long"),
    "eval.tta.preset": ("none", "flip", "voc", "coco", "custom"),
    "eval.tta.merge": ("", "voting", "soft_voting", "nms"),
    "optimizer.decay_mask": ("caffe", "all", "kernels", "no_norm_decay"),
}

RANGES = {
    "input_size": (16, 4096),
    "data.holdout": (0, 10_000),
    "data.max_boxes": (1, 10_000),
    "data.workers": (0, 1024),
    "data.threads": (0, 1024),
    "data.prefetch": (1, 1024),
    "train.batch_size": (1, 10**6),
    "train.steps": (0, 10**9),
    "train.accumulation": (1, 10**4),
    "train.ema": (0, 0.999999),
    "train.log_every": (1, 10**9),
    "train.keep": (1, 10**4),
    "train.saturation.patience": (0, 10**6),
    "train.saturation.delta": (0, 1e9),
    "train.saturation.reductions": (0, 100),
    "train.saturation.factor": (0, 1),
    "optimizer.weight_decay": (0, 1),
    "optimizer.decay": (0, 1),
    "optimizer.warmup_start": (0, 1),
    "optimizer.warmup_epochs": (0, 10**6),
    "optimizer.warmup_lr": (0, 1e6),
    "optimizer.clip_norm": (0, 1e9),
    "eval.batch_size": (1, 10**6),
    "eval.images": (0, 10**4),
    "eval.score_drawn": (0, 1),
    "eval.max_images": (0, 10**9),
    "eval.precise_bn": (0, 10**6),
    "eval.tta.iou_threshold": (0, 1),
    "eval.tta.pixel_offset": (0, 1),
    "eval.tta.score_threshold": (0, 1),
    "eval.tta.max_detections": (0, 10**5),
    "landscape.every": (0, 10**9),
    "landscape.depth": (0, 16),
    "landscape.probe_every": (0, 10**9),
    "parallel.devices": (0, 10**6),
    "parallel.cpu_devices": (1, 64),
    "parallel.bn_group_size": (0, 10**6),
}


def validate(config: ConfigDict) -> None:
    """Checks keys, choices and ranges; names of classes are checked where ``jdet.build`` resolves them.

    Raises:
        ConfigError: names the key, the value and what it can be.
    """
    defaults = get_defaults()
    _check_keys(config, defaults, "config")
    for key, allowed in CHOICES.items():
        value = _lookup(config, key)
        if value not in allowed:
            raise ConfigError(
                f"config.{key}={value!r}{nearest(str(value), allowed)}; it can be one of "
                f"{', '.join(allowed)}"
            )
    for key, (low, high) in RANGES.items():
        value = _lookup(config, key)
        if not low <= value <= high:
            raise ConfigError(f"config.{key}={value}; it must lie in {low} … {high}")
    _check_landscape(config.landscape)


def _check_landscape(landscape: ConfigDict) -> None:
    """A probe is part of a record, and its lengths are numbers that rise from above 0."""
    every, probe_every, lengths = landscape.every, landscape.probe_every, landscape.probe_steps
    if probe_every and not every:
        raise ConfigError(
            f"config.landscape.probe_every={probe_every}, but config.landscape.every=0 records "
            f"nothing; set that as well, to {probe_every} or a divisor of it"
        )
    if probe_every and probe_every % every:
        raise ConfigError(
            f"config.landscape.probe_every={probe_every} is not a multiple of "
            f"config.landscape.every={every}; a probe belongs to a record"
        )
    numbers = isinstance(lengths, tuple) and all(type(x) in (int, float) for x in lengths)
    if not (numbers and lengths and all(a < b for a, b in zip((0, *lengths), (*lengths, 1e6)))):
        raise ConfigError(
            f"config.landscape.probe_steps={lengths!r}; it must be numbers rising from above 0 to "
            "below 1e6, such as (0.5, 1.0, 2.0, 4.0)"
        )


def _lookup(config: ConfigDict, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def _check_keys(config: ConfigDict, defaults: ConfigDict, where: str) -> None:
    for key, value in config.items():
        if key not in defaults:
            raise ConfigError(
                f"{where}.{key} does not exist{nearest(key, defaults)}; there are "
                f"{', '.join(defaults)}"
            )
        if isinstance(value, ConfigDict) and f"{where}.{key}" not in CLASS_GROUPS:
            _check_keys(value, defaults[key], f"{where}.{key}")
    for key in defaults:
        if key not in config:
            raise ConfigError(f"{where}.{key} is missing; start from jdet.config.get_defaults()")


def load(path: str | Path) -> ConfigDict:
    """Reads the ``config.json`` of a run; keys that are newer than the run get their defaults.

    Raises:
        ConfigError: no such file, or not a config.
    """
    path = Path(path)
    try:
        stored = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; {path.parent} holds no run") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not a config: {error}") from error
    config = get_defaults()
    for group in CLASS_GROUPS:  # replaced whole: their keys depend on the class
        *parents, last = group.split(".")[1:]
        holder = config
        for part in parents:
            holder = holder[part]
        holder[last] = ConfigDict()
    with config.unlocked():
        config.update(_tuples(complete(stored)))
    return config


def complete(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored config, migrated; keys that are newer than it have their defaults.

    Args:
        stored: what a ``config.json`` holds.
    """
    return _with_defaults(migrate(stored), json.loads(get_defaults().to_json()), "config")


def _with_defaults(stored: dict, defaults: dict, where: str) -> dict[str, Any]:
    if where in CLASS_GROUPS and stored.get("name", defaults["name"]) != defaults["name"]:
        return stored  # the defaults are those of another class
    filled = defaults | stored
    for key, default in defaults.items():
        if isinstance(default, dict) and isinstance(filled[key], dict):
            filled[key] = _with_defaults(filled[key], default, f"{where}.{key}")
    return filled


RENAMED = {
    "resize.mode": "resize.name",
    "eval.pictures": "eval.images",
    "eval.max_pictures": "eval.max_images",
}
"""Keys of configs stored by earlier versions, and what they are called now."""


def migrate(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A config stored by any earlier version, with the keys and values of this one.

    Args:
        stored: nested groups of plain values, as ``config.json`` holds them; may lack keys. Not changed.
    """
    config = json.loads(json.dumps(stored))
    for old, new in RENAMED.items():
        group, _, key = old.rpartition(".")
        if key in config.get(group, {}):
            config[group][new.rpartition(".")[2]] = config[group].pop(key)
    # Groups that were flat carried the keys of other choices too.
    for group, name, kept in (("resize", "warp", ()), ("augment", "none", ("mean",))):
        if config.get(group, {}).get("name") == name:
            config[group] = {k: v for k, v in config[group].items() if k in ("name", *kept)}
    train, model = config.get("train", {}), config.get("model", {})
    if isinstance(train.get("remat"), bool):
        train["remat"] = "full" if train["remat"] else "none"
    if model.get("normalizer") == "picture":
        model["normalizer"] = "image"
    return config


def norms(config: ConfigDict) -> dict[str, str]:
    """The norms that the model's group chooses, by key: ``norm``, ``head_norm``, where it has them."""
    return {key: config.model[key] for key in ("norm", "head_norm") if key in config.model}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups as one level of dotted keys, each after ``prefix``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _tuples(value: Any) -> Any:
    """JSON has no tuples, configs have no lists."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
