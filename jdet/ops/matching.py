"""Assignment of objects to default boxes and anchors: Caffe SSD's rule, and that of two thresholds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

MIN_OVERLAP = 1e-6
"""Pairs that overlap less than this are never matched (Caffe SSD, ``MatchBBox``)."""


class Matches(NamedTuple):
    """Result of a matching.

    Attributes:
        index: int32 [A], object of each default box; meaningless where not ``matched``.
        matched: bool [A].
        overlap: float32 [A], best IoU of each default box with any object (0 without objects).
    """

    index: jax.Array
    matched: jax.Array
    overlap: jax.Array


def bipartite_then_threshold(
    overlap: jax.Array, valid: jax.Array, threshold: float = 0.5, bipartite: bool = True
) -> Matches:
    """Gives every object a default box of its own, then every other box its best object.

    First step: repeatedly take the pair with the largest overlap among unmatched objects and
    unmatched boxes, so two objects never share their box. Second step: each remaining box whose
    best overlap reaches ``threshold`` is matched too (SSD, sec. 2.2; Caffe ``MatchBBox``).

    The first step runs in rounds. A pair that is the best choice of both its sides among what is
    left is always taken by the greedy order sooner or later, so all such pairs are taken at once;
    a few rounds do the work of one pass per object. Equal overlaps go to the lower indices.

    Args:
        overlap: float32 [N, A], IoU of objects and default boxes.
        valid: bool [N], which rows are objects.
        threshold: smallest IoU of the second step.
        bipartite: run the first step.

    Returns:
        Matches over the A default boxes.
    """
    num_objects, num_boxes = overlap.shape
    overlap = jnp.where(valid[:, None], overlap, 0.0)
    best = jnp.max(overlap, axis=0)  # [A]
    best_object = _first_argmax(overlap, best[None], axis=0)
    index = best_object
    matched = best >= threshold
    if not bipartite:
        return Matches(index, matched, best)

    object_ids = jnp.arange(num_objects, dtype=jnp.int32)

    def unfinished(carry):
        _, _, progress = carry
        return progress

    def one_round(carry):
        box_of_object, free_box, _ = carry  # [N] (num_boxes: none), [A]
        free_object = valid & (box_of_object == num_boxes)
        left = jnp.where(free_object[:, None] & free_box[None], overlap, 0.0)
        row_max = jnp.max(left, axis=1)
        choice = _first_argmax(left, row_max[:, None], axis=1)  # [N] best box of each object
        # The best object of the chosen boxes only: [N objects, N choices], not another [N, A] pass.
        wanted = left[:, choice]
        rival = _first_argmax(wanted, jnp.max(wanted, axis=0)[None], axis=0)
        take = (row_max > MIN_OVERLAP) & (rival == object_ids)
        box_of_object = jnp.where(take, choice, box_of_object)
        free_box = free_box.at[jnp.where(take, choice, num_boxes)].set(False, mode="drop")
        return box_of_object, free_box, jnp.any(take)

    start = (
        jnp.full([num_objects], num_boxes, jnp.int32) + 0 * best_object[0],
        matched | True,
        jnp.any(valid),
    )
    box_of_object, _, _ = jax.lax.while_loop(unfinished, one_round, start)
    index = index.at[box_of_object].set(object_ids, mode="drop")
    matched = matched.at[box_of_object].set(True, mode="drop")
    return Matches(index, matched, best)


def _first_argmax(values: jax.Array, maximum: jax.Array, axis: int) -> jax.Array:
    """Lowest index at which ``values`` equals its maximum: an argmax that CPUs can vectorise."""
    size = values.shape[axis]
    position = jax.lax.broadcasted_iota(jnp.int32, values.shape, axis)
    return jnp.min(jnp.where(values == maximum, position, size - 1), axis=axis)


OBJECTS_AT_A_TIME = 8
"""Rows of the overlap matrix that ``by_thresholds`` holds at once."""

BELOW, BETWEEN = -1, -2
"""Values of ``by_thresholds`` for boxes that are background, and for those left out of the loss."""


def by_thresholds(
    objects: Any,
    valid: jax.Array,
    overlap_of: Callable[[Any], jax.Array],
    high: float,
    low: float,
    low_quality: bool,
) -> jax.Array:
    """Max-IoU assignment of Faster R-CNN and RetinaNet (Ren et al. 2015, sec. 3.1.2).

    The overlaps of a few objects with all anchors exist at a time: an anchor needs only its best so
    far, and whether it was the best of some object. That is A numbers instead of N · A, which for
    200,000 anchors and 100 objects are 80 MB a picture.

    Args:
        objects: [N, …] array, what ``overlap_of`` takes rows of; the boxes, as a rule.
        valid: bool [N], which rows are objects.
        overlap_of: maps some rows of ``objects`` [n, …] to their overlaps with all anchors,
            float32 [n, A], 0 … 1.
        high: anchors from this overlap on take their best object, the first among equals.
        low: anchors below it are background; those between are left out.
        low_quality: anchors that are an object's best (ties included) take their own best object,
            whatever the overlap. An object that overlaps no anchor at all has no best ones.

    Returns:
        int32 [A]: index of the object, ``BELOW`` or ``BETWEEN``.
    """
    count = valid.shape[0]
    rows = min(OBJECTS_AT_A_TIME, count)
    blocks = -(-count // rows)
    spare = blocks * rows - count

    def in_blocks(values):
        padding = [(0, spare)] + [(0, 0)] * (values.ndim - 1)
        return jnp.pad(values, padding).reshape(blocks, rows, *values.shape[1:])

    def take(carry, block):
        best, index, chosen = carry
        rows_of_block, valid, first = block
        overlap = jnp.where(valid[:, None], overlap_of(rows_of_block), -1.0)
        # An overlap computed twice may differ in its last bit and miss its own maximum.
        overlap = jax.lax.optimization_barrier(overlap)
        here = jnp.max(overlap, axis=0)
        index = jnp.where(here > best, first + _first_argmax(overlap, here[None], axis=0), index)
        row_best = jnp.max(overlap, axis=1, keepdims=True)
        chosen = chosen | jnp.any((overlap == row_best) & (row_best > 0), axis=0)
        return (jnp.maximum(best, here), index, chosen), None

    num_anchors = jax.eval_shape(overlap_of, objects[:1]).shape[1]
    zeros = (
        jnp.zeros(num_anchors) * valid[0]
    )  # varies over the mesh axes that the objects vary over
    start = (zeros - 1.0, zeros.astype(jnp.int32), zeros > 0)
    blocks_of = (in_blocks(objects), in_blocks(valid), jnp.arange(blocks, dtype=jnp.int32) * rows)
    (best, index, chosen), _ = jax.lax.scan(take, start, blocks_of)
    result = jnp.where(best < low, BELOW, jnp.where(best < high, BETWEEN, index))
    return jnp.where(chosen, index, result) if low_quality else result
