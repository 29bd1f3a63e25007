"""Percentiles of more numbers than fit into memory, with a bounded error of rank.

Numbers are summed up by points that each stand for an equal share of them. Summaries are merged as in a
counter to the base ``BASE``: so many of a level become one of the next (mergeable summaries, Agarwal et al.
2013). Each time numbers are reduced to ``POINTS`` points, a rank among them moves by at most half a point,
and on level m they have been reduced m + 1 times. A percentile of 16 ** m images thus lies within
``100 (m + 1) / (2 POINTS)`` percentage points of its rank: 0.03 for 50,000 images. Fewer numbers than
``POINTS`` are kept as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

POINTS = 8192
BASE = 16


class Summary(NamedTuple):
    """Numbers, or points that stand for more of them.

    Attributes:
        values: float32 [P], rising.
        weights: float64 [P], how many numbers each stands for.
    """

    values: np.ndarray
    weights: np.ndarray

    @property
    def total(self) -> float:
        """How many numbers it stands for."""
        return float(self.weights.sum())


def summarise(numbers: np.ndarray, points: int = POINTS) -> Summary:
    """The summary of numbers, float32 [n], by ``points`` of their order statistics."""
    ordered = np.sort(numbers)
    count = len(ordered)
    if count <= points:
        return Summary(ordered, np.ones(count))
    ranks = ((np.arange(points) + 0.5) * (count / points)).astype(np.intp)
    return Summary(ordered[ranks], np.full(points, count / points))


def merge(summaries: Sequence[Summary], points: int = POINTS) -> Summary:
    """One summary of several."""
    values = np.concatenate([s.values for s in summaries])
    weights = np.concatenate([s.weights for s in summaries])
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    if len(values) <= points:
        return Summary(values, weights)
    ends = np.cumsum(weights)
    ranks = (np.arange(points) + 0.5) * (ends[-1] / points)
    chosen = np.minimum(np.searchsorted(ends, ranks), len(values) - 1)
    return Summary(values[chosen], np.full(points, ends[-1] / points))


class Counter:
    """Summaries of a stream, merged as it goes.

    Attributes:
        levels: summaries by how often they were merged, fewer than ``BASE`` of each level.
    """

    def __init__(self, levels: Mapping[int, Sequence[Summary]] | None = None):
        self.levels = {level: list(held) for level, held in (levels or {}).items()}

    def add(self, summary: Summary, level: int = 0) -> None:
        """Adds a summary."""
        held = self.levels.setdefault(level, [])
        held.append(summary)
        if len(held) == BASE:
            del self.levels[level]
            self.add(merge(held), level + 1)

    def extend(self, other: Counter) -> None:
        """Adds what another has counted."""
        for level, held in sorted(other.levels.items()):
            for summary in held:
                self.add(summary, level)

    def percentiles(self, ranks: Sequence[float]) -> np.ndarray:
        """Values at ranks in 0 … 100, float64 [len(ranks)], between two points by a straight line.

        Of nothing they are NaN.
        """
        summaries = [summary for held in self.levels.values() for summary in held]
        if not sum(len(s.values) for s in summaries):
            return np.full(len(ranks), np.nan)
        whole = merge(summaries, sum(len(s.values) for s in summaries))
        middles = np.cumsum(whole.weights) - whole.weights / 2
        ends = 0.5, whole.total - 0.5  # the ranks of the smallest and of the largest number
        wanted = ends[0] + np.asarray(ranks) / 100 * (ends[1] - ends[0])
        return np.interp(wanted, middles, whole.values.astype(np.float64))
