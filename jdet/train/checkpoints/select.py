"""Selection of a checkpoint in a folder: the newest, the best, or one by its number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from jdet.config import nearest
from jdet.train.checkpoints import manifest
from jdet.types import ConfigError

FOLDER = "checkpoints"
"""Where they lie in the folder of a run."""


def check_metric(best_metric: str, names: Iterable[str]) -> None:
    """Refuses a metric for the best checkpoint that no evaluation returns.

    Args:
        best_metric: ``train.best_metric``; "" is always right.
        names: of the metrics of an evaluation.

    Raises:
        ConfigError: ``best_metric`` is not among them.
    """
    names = list(names)
    if best_metric and best_metric not in names:
        raise ConfigError(
            f"train.best_metric={best_metric!r} is no metric of the evaluation"
            f"{nearest(best_metric, names)}; there are {', '.join(names) or 'none'}"
        )


def parse_step(step: int | str | None) -> int | str | None:
    """Parses the name of a checkpoint.

    Args:
        step: a number, also as text; "best"; "latest", "" or None.

    Returns:
        The number, "best", or None for the newest.

    Raises:
        ConfigError: anything else.
    """
    if step in ("latest", "", None):
        return None
    if step == "best" or isinstance(step, int):
        return step
    if isinstance(step, str) and step.isdecimal():
        return int(step)
    raise ConfigError(f"step={step!r}: give a number, 'best' or 'latest'")


def steps_in(directory: Path) -> list[int]:
    """Steps of the checkpoints in a folder, oldest first; none where there is no such folder."""
    if not directory.is_dir():
        return []
    return sorted(int(p.name) for p in directory.iterdir() if p.name.isdecimal() and p.is_dir())


def best_step(
    directory: Path, steps: list[int], metric: str, *, lowest: bool = False
) -> int | None:
    """The newest of the steps with the largest metric; the newest where none was evaluated.

    Args:
        directory: of the checkpoints.
        steps: that it holds, oldest first.
        metric: its name; "": the first.
        lowest: the smallest is the best.
    """
    best, best_value = steps[-1] if steps else None, -math.inf
    for step in steps:
        try:
            metrics = manifest.read(directory / str(step))["metrics"]
        except manifest.Damaged:
            continue
        value = metrics.get(metric) if metric else next(iter(metrics.values()), None)
        if value is None:
            continue
        value = -value if lowest else value
        if value >= best_value:
            best, best_value = step, value
    return best
