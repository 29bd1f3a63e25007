"""What the assignment rules share: the values of a result, and the best object of every anchor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

BELOW, BETWEEN = -1, -2
"""Assignments of anchors that are background, and of those left out of the loss."""

OBJECTS_AT_A_TIME = 8
"""Number of objects whose values for all anchors exist at the same time."""


def first_argmax(values: jax.Array, maximum: jax.Array, axis: int) -> jax.Array:
    """Lowest index at which ``values`` equals its maximum: an argmax that CPUs can vectorise."""
    size = values.shape[axis]
    position = jax.lax.broadcasted_iota(jnp.int32, values.shape, axis)
    return jnp.min(jnp.where(values == maximum, position, size - 1), axis=axis)


def best_objects(
    objects: Any,
    valid: jax.Array,
    value_of: Callable[[Any], jax.Array],
    none: float,
    least: float = 0.0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The best object of every anchor, and the object of which the anchor is a best one.

    The values are computed for ``OBJECTS_AT_A_TIME`` objects at a time, and only the best so far is kept
    per anchor: A numbers instead of N · A, which for 200,000 anchors and 100 objects are 80 MB per image.

    Args:
        objects: [N, …], or a tuple of such.
        valid: bool [N].
        value_of: maps rows [n, …] to float32 [n, A].
        none: value of rows that are not valid.
        least: smallest maximum of an object that makes anchors its best ones; the maximum must be above
            0 in any case.

    Returns:
        Three arrays [A]: the best value, float32; its object, int32 (the first among equals; 0 where the
        best value is ``none``); and, int32, the index of the last object for which this anchor attains
        the maximum value (> 0 and at least ``least``), ties included; -1 if there is none.
    """
    num_anchors = jax.eval_shape(value_of, objects).shape[1]
    count = valid.shape[0]
    if not count or not num_anchors:
        nothing = jnp.zeros(num_anchors, jnp.int32)
        return jnp.full(num_anchors, none), nothing, nothing - 1
    rows = min(OBJECTS_AT_A_TIME, count)
    blocks = -(-count // rows)
    spare = blocks * rows - count

    def in_blocks(values):
        padding = [(0, spare)] + [(0, 0)] * (values.ndim - 1)
        return jnp.pad(values, padding).reshape(blocks, rows, *values.shape[1:])

    def take(carry, block):
        best, index, chosen = carry
        rows_of_block, valid, first = block
        value = jnp.where(valid[:, None], value_of(rows_of_block), none)
        # A value computed twice may differ in its last bit and miss its own maximum.
        value = jax.lax.optimization_barrier(value)
        here = jnp.max(value, axis=0)
        index = jnp.where(here > best, first + first_argmax(value, here[None], axis=0), index)
        row_best = jnp.max(value, axis=1, keepdims=True)
        hit = (value == row_best) & (row_best > 0) & (row_best >= least)
        chosen = jnp.maximum(chosen, jnp.max(jnp.where(hit, first + numbers, -1), axis=0))
        return (jnp.maximum(best, here), index, chosen), None

    numbers = jnp.arange(rows, dtype=jnp.int32)[:, None]
    # The start varies over the mesh axes that the objects vary over.
    zeros = jnp.zeros(num_anchors) * valid[0]
    start = (zeros + none, zeros.astype(jnp.int32), zeros.astype(jnp.int32) - 1)
    firsts = jnp.arange(blocks, dtype=jnp.int32) * rows
    blocks_of = (jax.tree.map(in_blocks, objects), in_blocks(valid), firsts)
    return jax.lax.scan(take, start, blocks_of)[0]


def most_overlapped(
    index: jax.Array, positive: jax.Array, overlap: jax.Array, total: int
) -> jax.Array:
    """Gives every place to the object that it overlaps most of those which chose it.

    Args:
        index: int32 [N, n], places that objects chose.
        positive: bool [N, n], which of them count.
        overlap: float32 [N, n], of each with its object; computed once, behind a barrier or a loop, as a
            number computed twice may differ in its last bit and miss its own maximum.
        total: number of places, A.

    Returns:
        int32 [A], index of the object (the first of equal overlaps), or ``BELOW``.
    """
    target = jnp.where(positive, index, total)
    best = jnp.zeros(total).at[target].max(overlap, mode="drop")
    wins = positive & (overlap == best.at[target].get(mode="fill", fill_value=-1.0))
    none = len(index)
    owner = jnp.broadcast_to(jnp.arange(none, dtype=jnp.int32)[:, None], target.shape)
    result = jnp.full(total, none, jnp.int32)
    result = result.at[jnp.where(wins, target, total)].min(owner, mode="drop")
    return jnp.where(result == none, BELOW, result)
