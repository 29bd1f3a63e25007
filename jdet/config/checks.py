"""Keys, choices, ranges: what a config must be like, and which keys may change or differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jdet.config import ranges
from jdet.config.defaults import get_defaults
from jdet.config.images import image_settings
from jdet.data.balance import WEIGHTINGS
from jdet.types import ConfigError, nearest

CLASS_GROUPS = (
    "config.model",
    "config.resize",
    "config.augment",
    "config.data.train",
    "config.data.eval",
)
"""Groups that name a class, which knows its own fields and checks them (see ``jdet.build``)."""

LOCAL = (
    r"data\.(root|workers|threads|prefetch)",
    r"data\.(train|eval)\.(root|annotation_file|image_root)",
)
"""Keys that may differ between the hosts of a run: where files lie and how they are read. That the
data is the same is seen from what it holds."""

FREE = (
    *LOCAL,
    r"data\.eval(\..*)?",
    r"data\.min_usable",
    r"data\.image\.high_byte",  # what it does shows in the type that is found
    r"data\.image\.found\.reached",  # measured; prediction alone looks at it
    r"train\.(remat|remat_parts|sample_stats|log_every|eval_every|eval_at_start|save_every|keep)",
    r"train\.best_(metric|mode)",
    r"train\.(loggers|project)",
    r"train\.learning(\..*)?",
    r"eval(\..*)?",
    r"landscape(\..*)?",
    r"parallel\.(devices|cpu_devices)",
)
"""Keys that may change when a run goes on: where files lie, how fast and how often things are done,
and what is evaluated. None of them changes which weights come out, but for the last digits where the
number of devices changes (where that would change more, ``Workdir.check_split`` refuses it), and for
what ``train.saturation`` or ``early_stop`` decides from other evaluations. That a moved data set is the
same is checked by its size."""

CHOICES = {
    "precision": ("float32", "bfloat16"),
    "data.on_error": ("raise", "skip"),
    "data.normalise.by": ("constants", "data", "range"),
    "init_from.weights": ("ema", "raw"),
    "init_from.class_map": ("names", "none"),
    "init_from.random_frozen": ("refuse", "allow"),
    "train.budget.counts": ("steps", "all"),
    "train.length": ("fixed_iters", "fixed_samples"),
    "calibration.scope": ("backbone", "all", "scale_invariant"),
    "calibration.statistic": ("batch_grad", "per_example", "positionwise"),
    "calibration.reference_signal": ("loss", "gaussian"),
    "train.best_mode": ("max", "min"),
    "train.class_weights.by": WEIGHTINGS,
    "train.loss_norm": ("global", "per_device"),
    "train.remat": ("none", "convs", "full", "stages"),
    "optimizer.name": ("sgd", "adamw"),
    "optimizer.schedule": (
        "step",
        "cosine",
        "polynomial",
        "exponential",
        "constant",
        "normal",
        "long",
    ),
    "eval.tta.preset": ("none", "flip", "voc", "coco", "custom"),
    "eval.tta.merge": ("", "voting", "soft_voting", "nms"),
    "optimizer.decay_mask": ("caffe", "all", "kernels", "no_norm_decay"),
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
    for key, allowed in ranges.RANGES.items():
        ranges.check(allowed, f"config.{key}", _lookup(config, key))
    _check_landscape(config.landscape)
    _check_looks(config.train.learning.at)
    image_settings(config)
    _check_normalise(config.data.normalise)
    _check_weights(config.train.class_weights)
    _check_tiles(config.eval)


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


def _check_looks(at: Any) -> None:
    """Shares of a run."""
    if not isinstance(at, tuple) or not all(type(x) in (int, float) and 0 < x <= 1 for x in at):
        raise ConfigError(
            f"config.train.learning.at={at!r}; it must be shares of the run above 0 and at most 1, such as "
            "(0.05, 0.1, 0.25)"
        )


def _check_normalise(group: ConfigDict) -> None:
    """A range belongs to "range", and has two rising ends."""
    key, given = "config.data.normalise.range", tuple(group.range)
    if group.by != "range" and given:
        raise ConfigError(
            f"{key}={given}, but config.data.normalise.by={group.by!r}; set that to 'range', or the range "
            "to ()"
        )
    rising = len(given) == 2 and all(type(x) in (int, float) for x in given)
    if group.by == "range" and not (rising and -1e30 < given[0] < given[1] < 1e30):
        raise ConfigError(f"{key}={given}; it must be two rising numbers, such as (-1000.0, 400.0)")


def _check_weights(group: ConfigDict) -> None:
    """Weights are numbers above 0, and are there where they are to be given."""
    key, given = "config.train.class_weights.factors", tuple(group.factors)
    if (group.by == "none") == bool(given) and group.by in ("none", "given"):
        raise ConfigError(
            f"{key}={given}, but config.train.class_weights.by={group.by!r}; "
            + (
                "set that to 'given', or the values to ()"
                if given
                else "give a number for each class"
            )
        )
    ranges.check(ranges.SIZE, key, given)


def _check_tiles(group: ConfigDict) -> None:
    """Tiles overlap by half of their side at most, and are shown at one size."""
    side, overlap = group.tile.side, group.tile.overlap
    if side and 2 * overlap > side:
        raise ConfigError(
            f"config.eval.tile.overlap={overlap} is more than half of config.eval.tile.side={side}; set "
            f"the overlap to {side // 2} or less, or the side to {2 * overlap} or more"
        )
    if side and group.tta.preset != "none":
        raise ConfigError(
            f"config.eval.tile.side={side} and config.eval.tta.preset={group.tta.preset!r}: tiles are "
            "shown at one size; set one of them to 0 or 'none'"
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
        open_group = f"{where}.{key}" in (*CLASS_GROUPS, "config.phase")
        if isinstance(value, ConfigDict) and not open_group:
            _check_keys(value, defaults[key], f"{where}.{key}")
    for key in defaults:
        if key not in config:
            raise ConfigError(f"{where}.{key} is missing; start from jdet.config.get_defaults()")


NORM_NAMES = {"fixed": "frozen_batch", "affine": "affine_batch"}
"""Names of modes in fine-tuning (docs/batch_norm.md), and the kinds of norm they are."""


def norms(config: ConfigDict) -> dict[str, str]:
    """The kinds of norm that the model's group chooses, by key: ``norm`` and ``head_norm``, where there."""
    given = {key: config.model[key] for key in ("norm", "head_norm") if key in config.model}
    return {key: NORM_NAMES.get(kind, kind) for key, kind in given.items()}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups as one level of dotted keys, each after ``prefix``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
