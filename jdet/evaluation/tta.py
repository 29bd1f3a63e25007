"""Test-time augmentation (TTA): the passes of multi-scale testing and how they are configured.

ScratchDet300+ names no details; the presets are those of RefineDet's test code, whose author is one
of ScratchDet's, with S = ``config.input_size``. Default boxes keep their steps and sizes in pixels,
so a larger input finds smaller objects, and of each pass only boxes of the sizes that it is good at are
kept. Where images keep their proportions (``config.resize``), a pass multiplies the sides that testing
gives them. ``jdet.evaluation.multi_scale`` runs the passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jdet.types import ConfigError


class Pass(NamedTuple):
    """One test-time augmentation: an input size, with or without the mirrored image.

    Attributes:
        long: input pixels along the image's longer side, as a factor of ``input_size``; of images
            that keep their proportions, of their size in testing.
        short: along its shorter side. Equal factors are a square input, where images are warped.
        flip: detect in the mirrored image as well.
        above: keep boxes whose longer side is above this, in pixels of the original image; 0: all.
        below: keep boxes whose shorter side is below this; 0: all.
    """

    long: float
    short: float
    flip: bool = True
    above: float = 0.0
    below: float = 0.0


_VOC = (
    Pass(1.0, 1.0),
    Pass(1.0, 0.6),
    Pass(0.6, 0.6, above=32),
    Pass(1.2, 1.2, below=160),
    Pass(1.4, 1.4, below=128),
    Pass(1.6, 1.6, below=96),
    Pass(1.8, 1.8, below=64),
    Pass(2.2, 2.2, below=32),
)

PRESETS: dict[str, tuple[tuple[Pass, ...], str]] = {
    "flip": ((Pass(1.0, 1.0),), "voting"),
    "voc": (_VOC, "voting"),
    "coco": ((*_VOC[:-1], Pass(2.0, 2.0, below=48), _VOC[-1]), "soft_voting"),
}
"""Passes and merging by name; "voc" and "coco" as in RefineDet's multi-scale test."""


class Settings(NamedTuple):
    """The group ``config.eval.tta``, checked and with its preset filled in.

    Attributes:
        passes: at least one.
        merge: one of ``voting.KINDS``.
        iou_threshold: overlap from which boxes of a class are one.
        pixel_offset: added to widths and heights for that overlap.
        score_threshold: of soft voting.
        max_detections: per image after merging; 0: as many as the detector's.
    """

    passes: tuple[Pass, ...]
    merge: str
    iou_threshold: float
    pixel_offset: float
    score_threshold: float
    max_detections: int


def settings(group: Mapping[str, Any]) -> Settings | None:
    """What ``config.eval.tta``, of a validated config, asks for; None where it is off.

    Raises:
        ConfigError: an invalid pass, or passes and preset that do not go together.
    """
    preset, given = group["preset"], group["passes"]
    if preset != "custom" and given:
        raise ConfigError(
            f"config.eval.tta.passes is given, but config.eval.tta.preset={preset!r} has its own; "
            "set the preset to 'custom', or leave the passes out"
        )
    if preset == "none":
        return None
    if preset == "custom":
        if not given:
            raise ConfigError(
                "config.eval.tta.preset='custom' needs config.eval.tta.passes, such as "
                "((1.0, 1.0, True, 0, 0),): long side, short side, flip, above, below"
            )
        passes, merge = tuple(_pass(i, values) for i, values in enumerate(given)), "voting"
    else:
        passes, merge = PRESETS[preset]
    merge = group["merge"] or merge
    rest = ("iou_threshold", "pixel_offset", "score_threshold", "max_detections")
    return Settings(passes, merge, *(group[key] for key in rest))


def _pass(index: int, values: Any) -> Pass:
    key = f"config.eval.tta.passes[{index}]={values!r}"
    try:
        long, short, flip, above, below = values
        result = Pass(float(long), float(short), flip, float(above), float(below))
    except (TypeError, ValueError):
        raise ConfigError(
            f"{key} is not (long side, short side, flip, above, below), such as "
            "(1.2, 1.2, True, 0, 160)"
        ) from None
    if not isinstance(flip, bool):
        raise ConfigError(f"{key}: flip is True or False")
    if not (0 < result.short <= result.long <= 16):
        raise ConfigError(
            f"{key}: the factors of long and short side must lie in 0 < short <= long <= 16"
        )
    if not (0 <= result.above < float("inf") and 0 <= result.below < float("inf")):
        raise ConfigError(f"{key}: above and below are pixels, 0 for no limit")
    if result.below and result.above >= result.below:
        raise ConfigError(
            f"{key} keeps what is above {result.above:g} and below {result.below:g} pixels, which "
            "is turned round; above must be the smaller one, and 0 is no limit"
        )
    return result
