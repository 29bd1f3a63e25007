"""Forecasts of runs in their folders, finished or not: what the command prints, and what a run says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdet.analysis.price import images
from jdet.analysis.price.forecast import Forecast, predict
from jdet.train.folders import METRICS
from jdet.train.policy import read_evaluations
from jdet.train.workdir import Run
from jdet.types import ConfigError

METRICS_AT_HALF = ("coco/AP50", "voc07/mAP", "voc12/mAP")
"""Metrics at IoU 0.5, which forecasts are of; the first that a run has counts."""


class Price(NamedTuple):
    """A run as far as it has come.

    Attributes:
        name: of its folder.
        images: that it was trained on; 0 where that is not on record.
        metric: of the values.
        step: of the last evaluation.
        steps: of the whole run.
        now: value of the last evaluation.
        forecast: of the last step; None where there is none.
    """

    name: str
    images: int
    metric: str
    step: int
    steps: int
    now: float
    forecast: Forecast | None


def metric_of(metrics: Mapping[str, Any]) -> str:
    """The metric that is foretold, of those of an evaluation; "" where there is none."""
    return next((name for name in METRICS_AT_HALF if name in metrics), "")


def price(run: Run, metric: str = "") -> Price:
    """Reads a run.

    Args:
        run: evaluated at least once.
        metric: "": the first of ``METRICS_AT_HALF`` that it has.

    Raises:
        ConfigError: it has no evaluation with such a metric.
    """
    steps = int(run.record.get("steps") or 0)
    found = read_evaluations(run.path / METRICS, steps or 10**12)
    last = max(found, key=lambda one: one.step, default=None)
    name = metric or metric_of(last.metrics if last else {})
    value = last.metrics.get(name, np.nan) if last else np.nan
    if last is None or not np.isfinite(value):
        raise ConfigError(
            f"{run.path} has no evaluation with {metric or 'an AP at IoU 0.5'}; train it with "
            "--config.train.eval_every=STEPS, a fifth of its steps, and --config.eval.metrics=\"('coco',)\""
        )
    going_on = steps and run.record.get("status") != "completed"
    ahead = None
    if going_on and name in METRICS_AT_HALF:
        ahead = predict(last.step / steps, float(value))
    trained = int(run.record.get("train_images") or 0)
    return Price(run.path.name, trained, name, last.step, steps, float(value), ahead)


def sentence(price: Price) -> str:
    """What a forecast says, in words."""
    if price.forecast is None:
        return (
            f"{price.metric} {100 * price.now:.1f} % after {price.step:,} of {price.steps:,} steps"
        )
    return (
        f"{price.metric} {100 * price.now:.1f} % after {price.step:,} of {price.steps:,} steps; at the end "
        f"{price.forecast} is expected, by recorded runs on other sets"
    )


def table(prices: Sequence[Price], target: float) -> list[str]:
    """Lines about runs on parts of a set: the law over images, and images for a target.

    Args:
        prices: of the runs, finished or forecast.
        target: AP, 0 … 1; 0: no target.

    Raises:
        ConfigError: fewer than three numbers of images, or metrics that differ.
    """
    counts = [one.images for one in prices]
    if len(set(counts) - {0}) < 3 or 0 in counts:
        raise ConfigError(
            f"these runs were trained on {', '.join(f'{n:,}' for n in sorted(set(counts)))} images; a law "
            "takes three numbers, such as runs with --config.data.share=0.25, 0.5 and 1"
        )
    if len({one.metric for one in prices}) > 1:
        raise ConfigError(
            f"these runs have {', '.join(sorted({one.metric for one in prices}))}; name one that all "
            "have, such as --metric=voc07/mAP"
        )
    law = images.fit(counts, [one.forecast.value if one.forecast else one.now for one in prices])
    most = max(counts)
    lines = ["", f"{prices[0].metric} over images, four in five draws between the outer numbers:"]
    for factor in (1, 2, 4, 10):
        low, middle, high = (100 * x for x in law.ap(factor * most))
        lines.append(f"  {factor * most:>9,} images  {low:.1f}  {middle:.1f}  {high:.1f} %")
    if target:
        few, some, many = law.images(target)
        lines.append(
            f"{100 * target:.0f} % take {_number(some)} images ({_number(few)} … {_number(many)}), "
            f"{_number(max(some - most, 0))} more than there are"
        )
    lines.append("an extrapolation by a power law; the interval knows of the noise of seeds alone")
    return lines


def _number(images: float) -> str:
    return f"{images:,.0f}" if images < 1e7 else "no number of"
