"""The matching of SSD: a default box of its own for every object, then a threshold."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jdet.ops.matching.best_objects import first_argmax

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


def match(
    overlap: jax.Array, valid: jax.Array, threshold: float = 0.5, bipartite: bool = True
) -> Matches:
    """Matches one default box to every object, then every remaining box to its best object.

    First step: repeatedly take the pair with the largest overlap among unmatched objects and
    unmatched boxes, so that two objects never share their box. Second step: each remaining box whose
    best overlap reaches ``threshold`` is matched too (SSD, sec. 2.2; Caffe ``MatchBBox``).

    The first step runs in rounds. A pair in which each side is the best choice of the other among
    what is left is taken by the greedy order sooner or later, so all such pairs are taken at once;
    a few rounds do the work of one pass per object. Equal overlaps go to the lower indices.

    Two objects and four default boxes:

    >>> overlap = jnp.array([[0.70, 0.60, 0.55, 0.10], [0.80, 0.30, 0.20, 0.00]])
    >>> found = match(overlap, jnp.array([True, True]), threshold=0.5)

    The largest overlap, 0.8, matches object 1 with box 0. Of the boxes left, object 0 overlaps box 1
    most. Box 2 reaches the threshold with object 0; box 3 stays background.

    >>> jnp.where(found.matched, found.index, -1).tolist()
    [1, 0, 0, -1]

    Without the first step only the threshold counts. At 0.65 box 0 is the only one that reaches it, and
    object 0, which overlaps it less than object 1 does, is left without a box:

    >>> found = match(overlap, jnp.array([True, True]), threshold=0.65, bipartite=False)
    >>> jnp.where(found.matched, found.index, -1).tolist()
    [1, -1, -1, -1]

    Args:
        overlap: float32 [N, A], IoU of objects and default boxes.
        valid: bool [N], which rows are objects.
        threshold: smallest IoU of the second step.
        bipartite: run the first step.

    Returns:
        Matches over the A default boxes.
    """
    num_objects, num_boxes = overlap.shape
    if 0 in overlap.shape:
        nothing = jnp.zeros(num_boxes)
        return Matches(nothing.astype(jnp.int32), nothing.astype(bool), nothing)
    overlap = jnp.where(valid[:, None], overlap, 0.0)
    best = jnp.max(overlap, axis=0)  # [A]
    best_object = first_argmax(overlap, best[None], axis=0)
    index = best_object
    matched = (best >= threshold) & (best > MIN_OVERLAP)
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
        choice = first_argmax(left, row_max[:, None], axis=1)  # [N] best box of each object
        # The best object of the chosen boxes only: [N objects, N choices], not another [N, A] pass.
        wanted = left[:, choice]
        rival = first_argmax(wanted, jnp.max(wanted, axis=0)[None], axis=0)
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
