"""Corner pooling (Law & Deng 2018, CornerNet, sec. 3.3): running maxima towards a corner."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

ROWS, COLUMNS = 1, 2
"""Axes of a map [B, h, w, C]."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def running_max(x: jax.Array, axis: int, reverse: bool) -> jax.Array:
    """The maximum of each cell and all before it along an axis.

    Along the rows of a map that is bottom pooling, along its columns right pooling. In reverse, the maximum
    of each cell and all behind it, they are top and left pooling: at the top left corner of an object a
    cell sees the object's upper edge to the right of it, and its left edge below.

    The first of equal values, in the direction of the pass, takes the whole gradient.

    Args:
        x: [B, h, w, C].
        axis: ``ROWS`` or ``COLUMNS``.
        reverse: from the end.

    Returns:
        Same shape and dtype.
    """
    return jax.lax.cummax(x, axis=axis, reverse=reverse)


def _forward(x, axis, reverse):
    y = running_max(x, axis, reverse)
    # A cell that is larger than all before starts a run of cells which repeat it.
    return y, y > _shifted(y, axis, -1 if reverse else 1, -jnp.inf)


def _backward(axis, reverse, starts, gradient):
    """The gradient of a run goes to its start: sums from the other end, which begin anew with each run."""
    ends = _shifted(starts, axis, 1 if reverse else -1, True)

    def join(behind, here):
        (end, total), (own_end, own) = behind, here
        return end | own_end, jnp.where(own_end, own, total + own)

    wide = gradient.astype(jnp.float32)
    _, sums = jax.lax.associative_scan(join, (ends, wide), reverse=not reverse, axis=axis)
    return (jnp.where(starts, sums, 0.0).astype(gradient.dtype),)


running_max.defvjp(_forward, _backward)


def _shifted(x, axis, step, fill):
    """Every cell gets the value of the one before it (``step`` 1) or behind it (-1)."""
    config = [(step, -step, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
    return jax.lax.pad(x, jnp.asarray(fill, x.dtype), config)
