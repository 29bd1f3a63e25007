"""What image values are normalised by: ``config.data.normalise``, and what it becomes for some data.

The result stands in the config: ``model.mean`` and ``model.std``, and in ``data.normalise`` the range of
the values, so that a stored config says all of it, and nothing is measured again after training has begun.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from jdet.data.measure import measure
from jdet.data.statistics import ImageStatistics
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.intensity import ImageValues
from jdet.types import ImageKind, Source

RESULTS = ("model.mean", "model.std", "augment.mean", "data.normalise.low", "data.normalise.high")
"""Keys that are filled in."""


def open_ended(config: ConfigDict) -> bool:
    """Whether the constants of a config are still to be found from data."""
    group = config.data.normalise
    return group.by != "constants" and not group.low


def measured(config: ConfigDict, source: Source, **options: Any) -> ImageStatistics:
    """Measures the images of a source as a config asks for it.

    Args:
        config: whole; not changed.
        source: of the training images.
        **options: of ``jdet.data.measure.measure``.

    Raises:
        DataError: nothing can be learnt from the values, or images cannot be read.
    """
    group, invalid = config.data.normalise, config.data.image.invalid
    low, high = map(float, group.range) if group.by == "range" else (0.0, 0.0)
    limits = (low, high) if group.by == "range" else None
    found = measure(
        source, invalid=invalid, limits=limits, on_error=config.data.on_error, **options
    )
    found.check("train data", invalid)
    return found


def fill_in(config: ConfigDict, found: ImageStatistics, kind: ImageKind) -> None:
    """Writes the constants into a config.

    By the data they are mean and standard deviation of each channel; by a range its middle and half its
    width, so that it becomes -1 … 1. Channels that are constant are only moved to 0. 8-bit RGB images have
    the mean of the data beside them too, unless the config has a colour of its own for that.

    Args:
        config: whole, with ``data.normalise.by`` other than "constants"; changed.
        found: of the training images.
        kind: of these images.
    """
    group, model = config.data.normalise, config.model
    before = tuple(model.get("mean", ()))
    if group.by == "range":
        low, high = map(float, group.range)
        mean, std = ((low + high) / 2,) * kind.channels, ((high - low) / 2,) * kind.channels
        ends = (low,) * kind.channels, (high,) * kind.channels
    else:
        mean, std, ends = found.centres, found.scales, found.levels
    with config.unlocked():
        model.mean, model.std = mean, std
        group.low, group.high = ends
        if eight_bit_rgb(kind) and tuple(config.augment.mean) in (Augment.mean, before):
            config.augment.mean = found.centres


def settle(
    config: ConfigDict,
    train: Source,
    once: Callable[[Callable[[], ImageStatistics]], ImageStatistics] = lambda action: action(),
) -> ImageStatistics | None:
    """Measures the training images and fills the constants in, where a config leaves them open.

    Args:
        config: whole; changed.
        train: the training images.
        once: performs what it is given, or has another process perform it, and returns what came out.

    Returns:
        What was measured; None where nothing was open.

    Raises:
        DataError: nothing can be learnt from the values, or images cannot be read.
    """
    if not open_ended(config):
        return None
    found = once(lambda: measured(config, train))
    fill_in(config, found, ImageKind.of(train))
    return found


def adopt(config: ConfigDict, stored: ConfigDict) -> None:
    """Takes the constants of a run, where a config that asks for the same leaves them open.

    They stay open where the two measure otherwise, or the run has none.

    Args:
        config: whole; changed.
        stored: config of the run.
    """
    if not open_ended(config) or open_ended(stored):
        return
    asked = (
        (c.data.normalise.by, tuple(c.data.normalise.range), c.data.image.invalid)
        for c in (config, stored)
    )
    if len(set(asked)) > 1:
        return
    own = tuple(config.augment.mean) not in (Augment.mean, tuple(config.model.get("mean", ())))
    with config.unlocked():
        for key in RESULTS:
            group, _, last = key.rpartition(".")
            if last in _value(stored, group) and not (own and key == "augment.mean"):
                _value(config, group)[last] = _value(stored, key)


def image_values(config: ConfigDict, kind: ImageKind) -> ImageValues:
    """What the values of images mean to the input pipeline.

    Args:
        config: whole.
        kind: of the images.
    """
    usual, group = ImageValues.of(kind), config.data.normalise
    neutral = tuple(map(float, config.model.get("mean", usual.neutral)))
    if len(neutral) == 1:
        neutral *= kind.channels
    return usual._replace(
        low=tuple(group.low) or usual.low,
        high=tuple(group.high) or usual.high,
        neutral=neutral if len(neutral) == kind.channels else usual.neutral,
        invalid=config.data.image.invalid,
    )


def provisional(config: ConfigDict, kind: ImageKind) -> dict[str, tuple[float, ...]]:
    """Constants of the right number for a model that is laid out before its data are measured."""
    if not open_ended(config):
        return {}
    low, high = kind.value_range
    mean, std = (low + high) / 2, (high - low) / 4
    return {"mean": (mean,) * kind.channels, "std": (std,) * kind.channels}


def describe(config: ConfigDict, kind: ImageKind) -> list[str]:
    """Which normalisation holds and where it comes from, a line each.

    Args:
        config: whole.
        kind: of the images.
    """
    group, invalid = config.data.normalise, config.data.image.invalid
    mean, std = (config.model.get(key, ()) for key in ("mean", "std"))
    figures = f" (mean {_numbers(mean)}; standard deviation {_numbers(std)})" if mean else ""
    if group.by == "range":
        low, high = group.range
        how = f"so that the range {low:.6g} … {high:.6g} becomes -1 … 1"
    elif group.by == "constants":
        how = f"by constants of the {'config' if mean else 'detector'}{figures}"
    elif open_ended(config):
        how = "by what is measured on the training images as training begins"
    else:
        how = f"by what was measured on the training images{figures}"
    also = "" if invalid is None else f"; the value {invalid:g} stands for nothing measured"
    lines = [f"values are normalised {how}{also}"]
    low, high = kind.value_range
    spread = (high - low) / max(std or (1.0,))
    if group.by == "constants" and kind.dtype != "uint8" and not 0.5 <= spread <= 50:
        lines.append(
            f"these constants do not belong to images with values {low:.6g} … {high:.6g}; "
            "--config.data.normalise.by=data measures them"
        )
    return lines


def eight_bit_rgb(kind: ImageKind) -> bool:
    """Whether images are what recipes for photographs are made for."""
    return (kind.colour, kind.dtype) == ("rgb", "uint8")


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _value(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config
