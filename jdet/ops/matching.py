"""Assignment of objects to default boxes, anchors and points: the rules of SSD, RetinaNet and FCOS."""

from __future__ import annotations

import functools
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
"""Objects whose values for all anchors exist at once."""

LOW_QUALITY = ("object", "anchor", "none")
"""What becomes of anchors that are the best of an object below the upper threshold."""

BELOW, BETWEEN = -1, -2
"""Assignments of anchors that are background, and of those left out of the loss."""


def by_thresholds(
    objects: Any,
    valid: jax.Array,
    overlap_of: Callable[[Any], jax.Array],
    high: float,
    low: float,
    low_quality: str,
) -> jax.Array:
    """Max-IoU assignment of Faster R-CNN and RetinaNet (Ren et al. 2015, sec. 3.1.2).

    Args:
        objects: [N, …] array, what ``overlap_of`` takes rows of; the boxes, as a rule.
        valid: bool [N], which rows are objects.
        overlap_of: maps some rows of ``objects`` [n, …] to their overlaps with all anchors,
            float32 [n, A], 0 … 1.
        high: anchors from this overlap on take their best object, the first among equals.
        low: anchors below it are background; those between are left out.
        low_quality: what becomes of anchors that are an object's best (ties included), whatever the
            overlap. "object": they take that object, the last one where they are the best of several
            (MMDetection). "anchor": they take their own best object (torchvision, Detectron2), so that
            an object may get none. "none": they are like all others. An object that overlaps no anchor
            at all has no best ones.

    Returns:
        int32 [A]: index of the object, ``BELOW`` or ``BETWEEN``.
    """
    best, index, chosen = _best_objects(objects, valid, overlap_of, -1.0)
    result = jnp.where(best < low, BELOW, jnp.where(best < high, BETWEEN, index))
    if low_quality == "none":
        return result
    return jnp.where(chosen >= 0, chosen if low_quality == "object" else index, result)


def by_location(
    boxes: jax.Array,
    valid: jax.Array,
    points: jax.Array,
    reach: jax.Array,
    radius: jax.Array | None,
) -> jax.Array:
    """Assignment of FCOS: points take the smallest object they lie in (Tian et al. 2019, sec. 3.1, 3.2).

    A point's distances to the four sides of the object must all be above 0, and the longest within the
    reach of the point's level.

    Args:
        boxes: float32 [N, 4], x1 y1 x2 y2, pixels.
        valid: bool [N], which rows are objects.
        points: float32 [A, 2], x y.
        reach: float32 [A, 2], shortest and longest side distance of each point, both included.
        radius: float32 [A]: centre sampling, a point must be nearer than that to the object's centre
            along both axes (Tian et al. 2020, sec. 3.1); None: all of the object counts.

    Returns:
        int32 [A]: index of the object (the first of equal areas), or ``BELOW``.
    """
    x, y = points[:, 0], points[:, 1]

    def minus_area(rows):
        x1, y1, x2, y2 = (rows[:, i, None] for i in range(4))
        sides = (x - x1, y - y1, x2 - x, y2 - y)
        longest = functools.reduce(jnp.maximum, sides)
        fits = functools.reduce(jnp.minimum, sides) > 0
        fits = fits & (longest >= reach[:, 0]) & (longest <= reach[:, 1])
        if radius is not None:
            away = jnp.maximum(jnp.abs(2 * x - x1 - x2), jnp.abs(2 * y - y1 - y2))
            fits = fits & (away < 2 * radius)
        return jnp.where(fits, -(x2 - x1) * (y2 - y1), -jnp.inf)

    best, index, _ = _best_objects(boxes, valid, minus_area, -jnp.inf)
    return jnp.where(best > -jnp.inf, index, BELOW)


def _best_objects(
    objects: Any, valid: jax.Array, value_of: Callable[[Any], jax.Array], none: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Every anchor's best object, and the object whose best it is.

    The values of a few objects for all anchors exist at a time: an anchor needs only its best so
    far, and whose best it was. That is A numbers instead of N · A, which for
    200,000 anchors and 100 objects are 80 MB an image.

    Args:
        objects: [N, …].
        valid: bool [N].
        value_of: maps rows [n, …] to float32 [n, A].
        none: value of what is no object.

    Returns:
        Best value float32 [A], its object int32 [A] (the first among equals; 0 where the best is
        ``none``), and int32 [A]: the last object whose highest value, above 0, the anchor has, ties
        included; -1: there is none.
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
        value = jnp.where(valid[:, None], value_of(rows_of_block), none)
        # A value computed twice may differ in its last bit and miss its own maximum.
        value = jax.lax.optimization_barrier(value)
        here = jnp.max(value, axis=0)
        index = jnp.where(here > best, first + _first_argmax(value, here[None], axis=0), index)
        row_best = jnp.max(value, axis=1, keepdims=True)
        hit = (value == row_best) & (row_best > 0)
        chosen = jnp.maximum(chosen, jnp.max(jnp.where(hit, first + numbers, -1), axis=0))
        return (jnp.maximum(best, here), index, chosen), None

    numbers = jnp.arange(rows, dtype=jnp.int32)[:, None]
    num_anchors = jax.eval_shape(value_of, objects[:1]).shape[1]
    zeros = (
        jnp.zeros(num_anchors) * valid[0]
    )  # varies over the mesh axes that the objects vary over
    start = (zeros + none, zeros.astype(jnp.int32), zeros.astype(jnp.int32) - 1)
    blocks_of = (in_blocks(objects), in_blocks(valid), jnp.arange(blocks, dtype=jnp.int32) * rows)
    return jax.lax.scan(take, start, blocks_of)[0]
