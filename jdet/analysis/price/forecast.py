"""The final AP of a run from an evaluation in its course, with an interval.

After the share u of a run, AP being a, the forecast is on the scale of log odds

    logit(final) = logit(a) + b · sqrt(1 - a) · log2(1 / u)²

with one number b of recorded runs (``jdet.analysis.price.recorded``), each set counting once. A run has
the more to gain the earlier it is asked, by more than the halvings of the remaining time, since rates fall
only towards the end; and what is nearly found has little to gain. More parameters did not extrapolate
better to sets that were left out. The interval is made of what was missed in such sets, per halving: it
holds the final AP as often as this run is like the recorded ones, no more.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jdet.analysis.price.recorded import RECORDED, Recorded

EARLIEST = 0.15
"""Share of a run before which nothing is foretold."""

_LEAST, _MOST = 0.2, 0.8  # shares of the evaluations that b is fitted to
_FLOOR = 0.01  # added to AP and to what is missing of 1, so that 0 and 1 have log odds
_QUANTILES = (0.1, 0.9)


class Forecast(NamedTuple):
    """What the AP at the end of a run will be.

    Attributes:
        value: expected, 0 … 1.
        low: four in five are above it and below ``high`` together, as with recorded runs of other sets.
        high: likewise.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.0f} % ({100 * self.low:.0f} … {100 * self.high:.0f} %)"


class Held(NamedTuple):
    """A forecast for a recorded run, by the runs of other sets.

    Attributes:
        run: which.
        share: of the run at which it is made.
        forecast: what it says.
        final: what came out.
    """

    run: Recorded
    share: float
    forecast: Forecast
    final: float


def predict(share: float, ap: float, runs: Sequence[Recorded] = RECORDED) -> Forecast | None:
    """The final AP of a run.

    Args:
        share: of its steps that are done, 0 … 1.
        ap: AP at IoU 0.5 now.
        runs: to learn from.

    Returns:
        The forecast; None before ``EARLIEST``, at the end, and for what is no AP.
    """
    if not (EARLIEST <= share < 1 and 0 <= ap <= 1):
        return None
    gain, low, high = _law(tuple(runs))
    halvings = np.log2(1 / share)
    middle = _odds(ap) + gain * _way(halvings, ap)
    return Forecast(*(_ap(middle + miss * halvings) for miss in (0.0, low, high)))


def leave_one_set_out(runs: Sequence[Recorded] = RECORDED) -> list[Held]:
    """The forecasts for all evaluations of recorded runs, each by the runs of all other sets."""
    found = []
    for run in runs:
        others = [other for other in runs if other.set != run.set]
        for share, ap in run.curve[:-1]:
            if (forecast := predict(share, ap, others)) is not None:
                found.append(Held(run, share, forecast, run.curve[-1][1]))
    return found


def mean_error(held: Sequence[Held], low: float, high: float) -> float:
    """Mean distance between forecast and final AP, each set counting once, for shares from low to high."""
    by_set: dict[str, list[float]] = {}
    for one in held:
        if low <= one.share <= high:
            by_set.setdefault(one.run.set, []).append(abs(one.forecast.value - one.final))
    return float(np.mean([np.mean(errors) for errors in by_set.values()]))


@functools.lru_cache(maxsize=64)
def _law(runs: tuple[Recorded, ...]) -> tuple[float, float, float]:
    """The number b of these runs, and two quantiles of what other sets missed by it, per halving."""
    misses, weights = [], []
    for name in {run.set for run in runs}:
        fitted = _fit([run for run in runs if run.set != name])
        halvings, way, gain, weight = _points([run for run in runs if run.set == name])
        misses += ((gain - fitted * way) / halvings).tolist()
        weights += weight.tolist()
    order = np.argsort(misses)
    shares = np.array(weights)[order] / sum(weights)
    low, high = np.interp(_QUANTILES, np.cumsum(shares) - shares / 2, np.array(misses)[order])
    return _fit(runs), float(min(low, 0)), float(max(high, 0))


def _fit(runs: Sequence[Recorded]) -> float:
    _, way, gain, weight = _points(runs)
    return float((weight * way * gain).sum() / (weight * way**2).sum())


def _way(halvings: float, ap: float) -> float:
    """What b is multiplied by."""
    return float(np.sqrt(1 - ap)) * halvings**2


def _points(runs: Sequence[Recorded]) -> tuple[np.ndarray, ...]:
    """Halvings left, ``_way``, log odds gained and weight of every evaluation; those of a set add to 1."""
    rows, sets = [], []
    for run in runs:
        for share, ap in run.curve[:-1]:
            if _LEAST <= share <= _MOST:
                halvings, gain = float(np.log2(1 / share)), _odds(run.curve[-1][1]) - _odds(ap)
                rows.append((halvings, _way(halvings, ap), gain))
                sets.append(run.set)
    columns = np.array(rows).reshape(-1, 3)
    weight = np.array([1 / sets.count(name) for name in sets])
    return (*columns.T, weight)


def _odds(ap: float) -> float:
    return float(np.log((ap + _FLOOR) / (1 - ap + _FLOOR)))


def _ap(odds: float) -> float:
    share = 1 / (1 + np.exp(-odds))
    return float(np.clip(share * (1 + 2 * _FLOOR) - _FLOOR, 0, 1))
