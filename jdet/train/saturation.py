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
    settings, every = config.train.saturation, config.train.eval_every
    if not settings.patience:
        if settings.minimum:
            raise ConfigError(
                f"train.saturation.minimum={settings.minimum} is for train.saturation.patience above 0"
            )
        return None
    if not every:
        raise ConfigError(
            f"train.saturation.patience={settings.patience} counts evaluations, but "
            "train.eval_every=0 leaves one at the end; set it to some steps"
        )
    if not 0 < settings.factor < 1:
        raise ConfigError(
            f"train.saturation.factor={settings.factor!r} must be above 0 and below 1"
        )
    metric = config.train.best_metric

    def policy(evaluations: Sequence[Evaluation]) -> Decision:
        return decide(
            [_main(each, metric) for each in evaluations],
            patience=settings.patience,
            minimum=settings.minimum,
            delta=settings.delta,
            reductions=settings.reductions,
            factor=settings.factor,
        )

    return policy


def decide(
    values: Sequence[float],
    *,
    patience: int,
    delta: float,
    reductions: int,
    factor: float,
    minimum: int = 0,
) -> Decision:
    """The decision after evaluations with these values of the main metric.

    With patience 2, delta 0.01 and one reduction, the values 0.1, 0.3, 0.305, 0.29, 0.31, 0.4, 0.39, 0.4
    count like this: 0.1 and 0.3 improve; 0.305 and 0.29 are not above 0.3 by more than 0.01, so the rate
    is reduced after 0.29; 0.31 does not either; 0.4 does; 0.39 and 0.4 do not, so the run ends.

    Args:
        values: higher is better; nan improves nothing.
        patience: evaluations in a row without improvement after which something is done, 1 or more.
        delta: an improvement exceeds the best value so far by more than this.
        reductions: of the rate before the end.
        factor: of each reduction.
        minimum: evaluations with which the first reduction, or the end without one, comes at the earliest.
    """
    best, waited, reduced = -math.inf, 0, 0
    for count, value in enumerate(values, 1):
        if value > best + delta:
            best, waited = value, 0
            continue
        waited += 1
        if waited < patience or count < minimum:
            continue
        if reduced == reductions:
            reason = f"the main metric has not exceeded {best:.4g} by more than {delta:g}"
            return Decision(factor**reduced, True, f"{reason} for {patience} evaluations")
        reduced, waited = reduced + 1, 0
    reason = f"rate reduced {reduced} of {reductions} times" if reduced else ""
    return Decision(factor**reduced, False, reason)


def _main(evaluation: Evaluation, metric: str) -> float:
    """The main metric of an evaluation; nan where it has none."""
    metrics = evaluation.metrics
    return metrics.get(metric, math.nan) if metric else next(iter(metrics.values()), math.nan)
