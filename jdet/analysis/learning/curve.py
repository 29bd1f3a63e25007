"""What the logged losses, gradient norms and rates of a run say of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jdet.train.checks import Row

HIGH, SPIKE = 1.5, 5.0
"""Loss in units of that of the first step: of the last third of the steps, and of any step, from which on
the rate is too high. The recorded runs that learnt stayed under 1.2."""

LITTLE = 0.1
"""Share of the loss that a whole run must be able to take away."""

MOVED = 1e-3
"""Way that every parameter must be able to go in a whole run of AdamW."""


class Curve(NamedTuple):
    """The losses so far, in units of that of the first step; nan without two steps on record.

    Attributes:
        last: median over the last third of the steps.
        most: the highest.
        reach: at the peak rate to the end, what a whole run can take away at most, to first order: a share
            of the loss with SGD, and the way a parameter can go in ``MOVED`` with AdamW. 1 and more is
            enough.
    """

    last: float
    most: float
    reach: float

    @property
    def high(self) -> bool:
        """The rate is too high."""
        return self.last >= HIGH or self.most >= SPIKE

    @property
    def low(self) -> bool:
        """The rate is too low for anything to happen before the end."""
        return self.reach < 1


def measure(
    rows: Sequence[Row], *, steps: int, peak: float, momentum: float | None, clip: float
) -> Curve:
    """Measures the curve.

    Args:
        rows: the logged steps, oldest first.
        steps: of the whole run.
        peak: highest learning rate of its schedule.
        momentum: of SGD; None: the optimiser is AdamW.
        clip: norm to which gradients are cut; 0: they are not.
    """
    losses = np.array([row["loss"] or math.nan for row in rows], float)
    losses = losses[np.isfinite(losses)]
    if len(losses) < 2 or losses[0] <= 0:
        return Curve(math.nan, math.nan, math.nan)
    shares = losses / losses[0]
    last = float(np.median(shares[-max(len(shares) // 3, 1) :]))
    if momentum is None:
        return Curve(last, float(shares.max()), peak * steps / MOVED)
    norms = np.array([row.get("grad_norm") or math.nan for row in rows], float)
    norms = norms[np.isfinite(norms)]
    if not len(norms):
        return Curve(last, float(shares.max()), math.nan)
    fall = np.median(norms * np.minimum(norms, clip or np.inf)) * peak * steps / (1 - momentum)
    return Curve(last, float(shares.max()), float(fall / (LITTLE * losses[0])))
