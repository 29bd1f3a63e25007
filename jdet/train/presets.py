"""Optimiser settings that suit a family of backbones, and warnings where a config contradicts them.

A backbone says its family by an attribute ``family``; without one, or with "", there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jdet.types import nearest

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "transformer": dict(
        name="adamw",
        lr=1e-4,
        reference_batch=0,
        weight_decay=0.05,
        decay_mask="no_norm_decay",
        bias_lr=1.0,
        warmup=500,
        warmup_start=1e-3,
        clip_norm=0.0,
    ),
}
"""Settings of the group ``optimizer`` by family. "transformer": AdamW for 16 images a step, no decay on
norms, biases and tables of positions, 500 steps of warm-up, no clipping (Liu et al. 2021 for detection,
kept by "Training Object Detectors from Scratch" 2022, sec. 5.2)."""

TOO_LARGE = 10.0
"""Multiple of a preset's learning rate above which a warning is due."""


def apply(optimizer: ConfigDict, family: str) -> None:
    """Sets what the preset of a family has; the schedule's drops stay as they are.

    Args:
        optimizer: the group of a config; changed in place.
        family: a key of ``PRESETS``.

    Raises:
        ValueError: there is no such family.
    """
    if family not in PRESETS:
        raise ValueError(
            f"family {family!r} has no preset{nearest(family, PRESETS)}; there are {', '.join(PRESETS)}"
        )
    optimizer.update(PRESETS[family])


def warnings(config: ConfigDict, detector: Any, peak_lr: float) -> list[str]:
    """What to say at the start of a run that is likely to learn nothing or little.

    Args:
        config: complete config.
        detector: its detector.
        peak_lr: highest learning rate, after scaling with the batch.
    """
    found, optimizer = [], config.optimizer
    backbones = {
        f"config.model.{field}": getattr(detector, field)
        for field, kind in detector.parts.items()
        if kind == "backbone"
    }
    for key, backbone in backbones.items():
        preset = PRESETS.get(getattr(backbone, "family", ""))
        if preset and optimizer.name != preset["name"]:
            typed = " ".join(
                f"--config.optimizer.{name}={preset[name]}"
                for name in ("name", "lr", "reference_batch", "weight_decay", "decay_mask")
            )
            found.append(
                f"{key} has transformer stages, which hardly learn by config.optimizer.name="
                f"{optimizer.name} (often mAP stays at 0); {typed} is what they are trained by"
            )
        elif preset and peak_lr > TOO_LARGE * preset["lr"]:
            found.append(
                f"the learning rate reaches {peak_lr:g}, {peak_lr / preset['lr']:.0f} times what "
                f"transformers are trained by with {optimizer.name}; if the loss does not fall, take "
                f"--config.optimizer.lr={preset['lr']} --config.optimizer.reference_batch=0"
            )
        if getattr(backbone, "zero_init", False) and not config.init_from.path:
            found.append(
                f"{key}.zero_init=True starts every residual block as its shortcut, a habit of "
                f"fine-tuning; detectors trained from scratch take --{key}.zero_init=False"
            )
    return found
