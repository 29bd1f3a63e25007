"""How many more images reach an AP: a power law of what is missing of 1, over the number of images.

    1 - AP(n) = c + k · n^-a,    0 ≤ c,  k ≥ 0,  0.05 ≤ a ≤ 1.5

fitted to runs on parts of a set by least squares, once to the APs as they are and many times to APs with
the spread of a seed added (a parametric bootstrap). The interval thus knows of noise, and not of whether
the law goes on to hold: three points on half a decade of images say little of the next decade.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NOISE = 0.02
"""Standard deviation of AP between runs that differ in the seed alone, where runs do not show it."""

_DRAWS, _QUANTILES = 500, (0.1, 0.5, 0.9)


class Law(NamedTuple):
    """The law, fitted to every draw.

    Attributes:
        floor: c, float64 [draws].
        factor: k, likewise.
        power: a, likewise.
    """

    floor: np.ndarray
    factor: np.ndarray
    power: np.ndarray

    def ap(self, images: float) -> tuple[float, float, float]:
        """AP with so many images: what a tenth, half and nine tenths of the draws stay below."""
        values = 1 - self.floor - self.factor * images**-self.power
        low, middle, high = np.quantile(np.clip(values, 0, 1), _QUANTILES)
        return float(low), float(middle), float(high)

    def images(self, target: float) -> tuple[float, float, float]:
        """Images that an AP takes, quantiles as of ``ap``; infinite where no number reaches it."""
        room = 1 - target - self.floor
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            needed = (self.factor / room) ** (1 / self.power)
        needed = np.sort(np.where(room > 0, needed, np.inf))
        at = [round(q * (len(needed) - 1)) for q in _QUANTILES]
        return float(needed[at[0]]), float(needed[at[1]]), float(needed[at[2]])


def fit(images: Sequence[int], aps: Sequence[float], *, seed: int = 0) -> Law:
    """Fits the law.

    Args:
        images: training images of each run; some may have equally many.
        aps: of the same runs, 0 … 1.
        seed: of the draws.

    Raises:
        ValueError: there are fewer than three different numbers of images.
    """
    counts, values = np.asarray(images, float), np.asarray(aps, float)
    if len(np.unique(counts)) < 3:
        raise ValueError("a law over images takes runs on three numbers of images or more")
    rng = np.random.default_rng(seed)
    drawn = rng.normal(0, _noise(counts, values), (_DRAWS, len(values)))
    drawn[0] = 0
    missing = np.clip(1 - values + drawn, 1e-3, 1)
    powers = np.geomspace(0.05, 1.5, 30)
    best = [np.full(_DRAWS, np.inf), *np.zeros((3, _DRAWS))]
    for power in powers:
        curve = counts**-power
        for share in np.linspace(0, 0.95, 20):
            floor = share * missing.min(1)
            factor = np.maximum((missing - floor[:, None]) @ curve / (curve @ curve), 0)
            wrong = ((floor[:, None] + factor[:, None] * curve - missing) ** 2).sum(1)
            better = wrong < best[0]
            new = (wrong, floor, factor, np.full(_DRAWS, power))
            best = [np.where(better, one, old) for one, old in zip(new, best, strict=True)]
    return Law(*best[1:])


def _noise(counts: np.ndarray, values: np.ndarray) -> float:
    """The spread of runs with equally many images, or ``NOISE`` if that is more or there are none."""
    spread = [
        values[counts == count].std(ddof=1)
        for count in np.unique(counts)
        if (counts == count).sum() > 1
    ]
    return max(float(np.mean(spread)), NOISE) if spread else NOISE
