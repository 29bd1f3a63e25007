"""Assignment of objects to default boxes by the rule of Caffe SSD."""

from __future__ import annotations

from typing import NamedTuple

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


BELOW, BETWEEN = -1, -2
"""Values of ``by_thresholds`` for boxes that are background, and for those left out of the loss."""


def by_thresholds(
    overlap: jax.Array, valid: jax.Array, high: float, low: float, low_quality: bool
) -> jax.Array:
    """Max-IoU assignment of Faster R-CNN and RetinaNet (Ren et al. 2015, sec. 3.1.2).

    Args:
        overlap: float32 [N, A], IoU of objects and anchors.
        valid: bool [N], which rows are objects.
        high: anchors from this overlap on take their best object.
        low: anchors below it are background; those between are left out.
        low_quality: anchors that are an object's best (ties included) take their own best object,
            whatever the overlap.

    Returns:
        int32 [A]: index of the object, ``BELOW`` or ``BETWEEN``.
    """
    overlap = jnp.where(valid[:, None], overlap, -1.0)
    best = jnp.max(overlap, axis=0)
    index = _first_argmax(overlap, best[None], axis=0)
    result = jnp.where(best < low, BELOW, jnp.where(best < high, BETWEEN, index))
    if low_quality:
        row_best = jnp.max(overlap, axis=1, keepdims=True)
        chosen = jnp.any((overlap == row_best) & valid[:, None], axis=0)
        result = jnp.where(chosen, index, result)
    return result.astype(jnp.int32)
