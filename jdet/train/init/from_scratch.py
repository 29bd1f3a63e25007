"""Nothing random stays as it is: what a run freezes must come from another run."""

from __future__ import annotations

import re
from typing import Any

import jax
from ml_collections import ConfigDict

from jdet.config import norms
from jdet.train import optim
from jdet.train.checkpoints.manifest import path_text
from jdet.train.init.plan import Plan
from jdet.types import ConfigError

_BODY = "(backbone|neck)/.*"
"""Paths of the parts whose norm is ``config.model.norm``; of all others it is ``head_norm``."""


def check(config: ConfigDict, params: Any, stats: Any, plan: Plan | None) -> None:
    """Refuses a run that would keep parameters or statistics of norms at their initial values.

    A frozen random convolution, or a batch norm that normalises by statistics nobody has measured, is what
    is left where the weights that a recipe was made for are dropped and its freezing is not; training then
    goes on, and little comes of it.

    Args:
        config: complete config; ``init_from.random_frozen="allow"`` turns the check off.
        params: abstract parameters.
        stats: abstract statistics.
        plan: what is loaded; None: nothing is.

    Raises:
        ConfigError: names what is frozen and not loaded, and the keys that freeze it.
    """
    if config.init_from.random_frozen == "allow":
        return
    loaded = {path for path, entry in plan.entries.items() if entry.taken} if plan else set()
    trains = optim.trainable(config.optimizer, params)
    still = [path_text(path) for path, on in jax.tree_util.tree_leaves_with_path(trains) if not on]
    found = []
    if left := [path for path in still if path not in loaded]:
        found.append(f"config.optimizer.rules freeze {len(left)} parameters, {_named(left)}")
    if left := [path for path in fixed_statistics(config, stats) if path not in loaded]:
        keys = {f"config.model.{key}={kind!r}" for key, kind in fixed_norms(config).items()}
        found.append(
            f"{' and '.join(sorted(keys)) or 'config.model.backbone.freeze_at'} keep {len(left)} "
            f"statistics, {_named(left)}"
        )
    if found:
        raise ConfigError(
            f"{'; '.join(found)}: at their initial values, as nothing loads them. Name a trained run in "
            "config.init_from.path, let them train, or keep them so with "
            "config.init_from.random_frozen='allow'"
        )


def _named(paths: list[str]) -> str:
    """The first of many paths."""
    return f"{', '.join(paths[:3])}{' …' if len(paths) > 3 else ''}"


def fixed_norms(config: ConfigDict) -> dict[str, str]:
    """The norms of the model's group with fixed statistics, by key."""
    return {key: kind for key, kind in norms(config).items() if kind in _FIXED}


_FIXED = ("frozen_batch", "affine_batch")


def fixed_statistics(config: ConfigDict, stats: Any) -> list[str]:
    """Paths of the statistics that training does not move: of fixed norms, and of frozen stages."""
    fixed = fixed_norms(config)
    paths = [path_text(path) for path, _ in jax.tree_util.tree_leaves_with_path(stats)]
    # Norms that keep scale and bias among their statistics are fixed whatever the groups say.
    frozen = {path.rpartition("/")[0] for path in paths if path.endswith("/scale")}

    def is_fixed(path: str) -> bool:
        key = "norm" if re.fullmatch(_BODY, path) else "head_norm"
        return key in fixed or path.rpartition("/")[0] in frozen

    return [path for path in paths if is_fixed(path)]
