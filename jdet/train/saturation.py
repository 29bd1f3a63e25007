"""Training until the main metric saturates, with the learning rate reduced on the way.

How long a network trained from random weights takes is rarely known beforehand. With
``train.saturation.patience`` set, a run goes on until its main metric has not improved for so many
evaluations. Then the learning rate is multiplied by ``factor`` and the run goes on, ``reductions`` times,
and after the last it ends. ``train.steps`` or ``train.epochs`` stay the upper bound, and the schedule's
own changes of the rate come on top.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ml_collections import ConfigDict

from jdet.train.policy import Decision, Evaluation, Policy
from jdet.types import ConfigError


def from_config(config: ConfigDict) -> Policy | None:
    """The policy of ``train.saturation``; None where it is off (``patience`` 0).

    The main metric is ``train.best_metric``, or the first of the evaluation.

    Raises:
        ConfigError: a setting is out of range, or the run has no evaluations to decide from.
    """
    settings = config.train.saturation
    if not is_on(config, "saturation"):
        return None
    if not 0 < settings.factor < 1:
        raise ConfigError(
            f"train.saturation.factor={settings.factor!r} must be above 0 and below 1"
        )

    def policy(evaluations: Sequence[Evaluation]) -> Decision:
        return decide(
            main_values(evaluations, config),
            patience=settings.patience,
            minimum=settings.minimum,
            delta=settings.delta,
            reductions=settings.reductions,
            factor=settings.factor,
            lowest=config.train.best_mode == "min",
        )

    return policy


def is_on(config: ConfigDict, name: str) -> bool:
    """Whether the group ``name`` of ``config.train`` has a patience.

    Raises:
        ConfigError: it has other settings without one, or the run has no evaluations to decide from.
    """
    settings = config.train[name]
    if not settings.patience:
        if settings.minimum:
            raise ConfigError(
                f"train.{name}.minimum={settings.minimum} is for train.{name}.patience above 0"
            )
        return False
    if not config.train.eval_every:
        raise ConfigError(
            f"train.{name}.patience={settings.patience} counts evaluations, but "
            "train.eval_every=0 leaves one at the end; set it to some steps"
        )
    return True


def decide(
    values: Sequence[float],
    *,
    patience: int,
    delta: float,
    reductions: int,
    factor: float,
    minimum: int = 0,
    lowest: bool = False,
) -> Decision:
    """The decision after evaluations with these values of the main metric.

    With patience 2, delta 0.01 and one reduction, the values 0.1, 0.3, 0.305, 0.29, 0.31, 0.4, 0.39, 0.4
    count like this: 0.1 and 0.3 improve; 0.305 and 0.29 are not above 0.3 by more than 0.01, so the rate
    is reduced after 0.29; 0.31 does not either; 0.4 does; 0.39 and 0.4 do not, so the run ends.

    Args:
        values: nan improves nothing.
        patience: evaluations in a row without improvement after which something is done, 1 or more.
        delta: an improvement exceeds the best value so far by more than this.
        reductions: of the rate before the end.
        factor: of each reduction.
        minimum: evaluations with which the first reduction, or the end without one, comes at the earliest.
        lowest: smaller values are better; an improvement lies below the best so far by more than ``delta``.
    """
    best, waited, reduced = math.inf if lowest else -math.inf, 0, 0
    for count, value in enumerate(values, 1):
        if value < best - delta if lowest else value > best + delta:
            best, waited = value, 0
            continue
        waited += 1
        if waited < patience or count < minimum:
            continue
        if reduced == reductions:
            verb = "fallen below" if lowest else "exceeded"
            reason = f"the main metric has not {verb} {best:.4g} by more than {delta:g}"
            return Decision(factor**reduced, True, f"{reason} for {patience} evaluations")
        reduced, waited = reduced + 1, 0
    reason = f"rate reduced {reduced} of {reductions} times" if reduced else ""
    return Decision(factor**reduced, False, reason)


def main_values(evaluations: Sequence[Evaluation], config: ConfigDict) -> list[float]:
    """The main metric of each evaluation, ``train.best_metric`` or the first; nan where it has none."""
    metric = config.train.best_metric
    return [
        each.metrics.get(metric, math.nan)
        if metric
        else next(iter(each.metrics.values()), math.nan)
        for each in evaluations
    ]
