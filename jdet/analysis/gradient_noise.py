"""Unbiased estimates of the gradient's variance at several batch sizes, and fits to them.

MegDet (Peng et al. 2018, sec. 3.1) argues from variances: where the gradient of N images has the
variance σ²/N, k steps of N images and one of k · N move the weights with the same variance if the
learning rate is k times as high. The variance of a vector is the trace of its covariance.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

TEAM = 4
"""Draws of which one sample variance is taken; their spread gives the standard error."""


class Noise(NamedTuple):
    """The measurements at one batch size.

    Attributes:
        batch: images per gradient, N.
        draws: gradients.
        variance: trace of the gradient's covariance.
        error: standard error of that.
        signal: squared L2 norm of the expected gradient; may come out below 0 where noise outweighs it.
        norm: L2 norm of a gradient, mean over the draws.
    """

    batch: int
    draws: int
    variance: float
    error: float
    signal: float
    norm: float


class Law(NamedTuple):
    """Fits of the variance as a function of the batch size N.

    Attributes:
        per_image: σ² of the least-squares fit σ²/N, each point weighted by its standard error.
        rest: a of the fit a + b/N: variance that no batch averages out.
        rest_error: its standard error.
        exponent: p of the fit c · N^-p; 1 by the argument.
        exponent_error: its standard error.
        noise_scale: σ² over the squared norm of the expected gradient (McCandlish et al. 2018, sec. 2.2),
            images: up to about so many, a larger batch pays. Nan where the signal drowned.
    """

    per_image: float
    rest: float
    rest_error: float
    exponent: float
    exponent_error: float
    noise_scale: float


def measure(
    gradient: Callable[[Any, Any], Any], fixed: Any, draws: Iterable[Any], batch: int
) -> Noise:
    """Variance of a random gradient from independent draws of it.

    Draws are taken in teams of ``TEAM``. The sample variance of a team, its squared deviations from its
    own mean over ``TEAM - 1``, is unbiased whatever the distribution, and so is the mean over teams,
    whose spread gives the standard error. The squared norm of the mean of all M draws exceeds that of
    the expected gradient by variance / M on average, which is taken off. Sums are kept as running
    means, so that a small variance beside a large mean is not lost in rounding.

    Args:
        gradient: maps ``fixed`` and a draw to a tree of float arrays; it is compiled.
        fixed: tree of arrays, such as the weights.
        draws: trees of arrays, a multiple of ``TEAM`` and two teams at least, independent of each other.
        batch: N, for the record.

    Raises:
        ValueError: a last team is incomplete, or there is only one.
    """
    carry, teams, count = None, [], 0
    for draw in draws:
        if carry is None:
            zeros = jax.tree.map(
                lambda x: jnp.zeros(x.shape, jnp.float32), jax.eval_shape(gradient, fixed, draw)
            )
            carry = _Carry(zeros, jax.tree.map(jnp.copy, zeros), jnp.float32(0), jnp.float32(0))
        carry = _update(gradient, carry, fixed, draw, jnp.float32(count % TEAM), jnp.float32(count))
        count += 1
        if count % TEAM == 0:
            teams.append(jnp.copy(carry.squares))
    if carry is None or count % TEAM or len(teams) < 2:
        raise ValueError(f"{count} draws; take a multiple of {TEAM}, {2 * TEAM} at least")
    variances = np.asarray(jax.device_get(teams), np.float64) / (TEAM - 1)
    variance = float(variances.mean())
    return Noise(
        batch=batch,
        draws=count,
        variance=variance,
        error=float(variances.std(ddof=1) / np.sqrt(len(variances))),
        signal=float(optax.tree.norm(carry.overall)) ** 2 - variance / count,
        norm=float(carry.norm),
    )


class _Carry(NamedTuple):
    """Running mean of the team, of all draws, squared deviations in the team, mean norm of all."""

    mean: Any
    overall: Any
    squares: jax.Array
    norm: jax.Array


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _update(
    gradient, carry: _Carry, fixed: Any, draw: Any, within: jax.Array, before: jax.Array
) -> _Carry:
    """One more draw (Welford 1962); ``within`` and ``before``: draws so far in the team and in all."""
    new = jax.tree.map(lambda x: x.astype(jnp.float32), gradient(fixed, draw))
    fresh = within == 0
    mean = jax.tree.map(lambda m: jnp.where(fresh, 0.0, m), carry.mean)
    squares = jnp.where(fresh, 0.0, carry.squares)
    away = optax.tree.sub(new, mean)
    mean = jax.tree.map(lambda m, d: m + d / (within + 1), mean, away)
    squares += jnp.asarray(optax.tree.vdot(away, optax.tree.sub(new, mean)))
    overall = jax.tree.map(lambda m, x: m + (x - m) / (before + 1), carry.overall, new)
    norm = carry.norm + (optax.tree.norm(new) - carry.norm) / (before + 1)
    return _Carry(mean, overall, squares, norm)


def fit(points: Sequence[Noise]) -> Law:
    """Fits laws to measurements at different batch sizes.

    Args:
        points: of at least two batch sizes, with a positive variance each.
    """
    sizes = np.array([p.batch for p in points], float)
    variances = np.array([p.variance for p in points])
    # A zero spread among few teams must not make a point infinitely heavy.
    errors = np.maximum([p.error for p in points], 1e-3 * variances)
    (slope,), _ = _least_squares([1 / sizes], variances, errors)
    (rest, _), spread = _least_squares([np.ones_like(sizes), 1 / sizes], variances, errors)
    (_, power), bend = _least_squares(
        [np.ones_like(sizes), -np.log(sizes)], np.log(variances), errors / variances
    )
    # The mean gradient is known best from the most images.
    most = max(points, key=lambda p: p.draws * p.batch)
    scale = slope / most.signal if most.signal > 0 else float("nan")
    return Law(
        float(slope), float(rest), float(spread[0]), float(power), float(bend[1]), float(scale)
    )


def _least_squares(columns, values, errors) -> tuple[np.ndarray, np.ndarray]:
    """Weighted fit of ``values`` by ``columns``: coefficients and their standard errors."""
    design = np.stack(columns, axis=1) / errors[:, None]
    covariance = np.linalg.inv(design.T @ design)
    return covariance @ design.T @ (values / errors), np.sqrt(np.diag(covariance))
