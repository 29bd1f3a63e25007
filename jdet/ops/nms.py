"""Exact greedy NMS (non-maximum suppression) with fixed shapes, on the device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdet.ops.boxes import area
from jdet.ops.vma import match_varying
from jdet.types import Detections

SOFT = ("none", "linear", "gaussian")
"""What overlapping boxes of a class lose: all of their score, or part of it (Bodla et al. 2017)."""

BLOCK = 256
"""Ranks that accelerators decide about in one step."""

Threshold = float | jax.Array


def nms(boxes: jax.Array, valid: jax.Array, iou_threshold: float) -> jax.Array:
    """Greedy NMS of boxes that are already sorted, best first.

    A box is kept unless it overlaps a kept box before it by more than ``iou_threshold``. The pairwise
    matrix never exists in memory. CPUs decide about one rank of all independent sets after the other;
    accelerators about 256 at once, so that 2,000 boxes take 8 steps instead of 2,000, with the same result
    (on a CPU 3 to 7 times as long).

    Args:
        boxes: float32 [..., n, 4], x1 y1 x2 y2, sorted by score; leading axes are independent sets.
        valid: bool [..., n], which rows exist; in each set they come first.
        iou_threshold: overlap above which the later box is dropped.

    Returns:
        bool [..., n], the boxes that are kept.
    """
    return valid if 0 in valid.shape else greedy_nms(boxes, valid, iou_threshold)


@jax.jit
def greedy_nms(boxes: jax.Array, valid: jax.Array, iou_threshold: Threshold) -> jax.Array:
    """``nms`` of at least one box, as one call, which exports know by its name."""
    return jax.lax.platform_dependent(
        boxes,
        valid,
        cpu=functools.partial(nms_by_rank, iou_threshold=iou_threshold),
        default=functools.partial(nms_by_block, iou_threshold=iou_threshold, block=BLOCK),
    )


def nms_by_rank(boxes: jax.Array, valid: jax.Array, *, iou_threshold: Threshold) -> jax.Array:
    """``nms`` in one step per rank, which is compared with the boxes after it."""
    sides = _sides(boxes)
    ranks = jnp.arange(boxes.shape[-2])

    def settle(rank, alive):
        def current(values):
            return jax.lax.dynamic_slice_in_dim(values, rank, 1, axis=-1)

        hit = _hit(tuple(map(current, sides)), sides, iou_threshold)
        return alive & ~(hit & (ranks > rank) & current(alive))

    return jax.lax.fori_loop(0, jnp.max(jnp.sum(valid, axis=-1)), settle, valid)


def nms_by_block(
    boxes: jax.Array, valid: jax.Array, *, iou_threshold: Threshold, block: int
) -> jax.Array:
    """``nms`` in one step per block of ranks.

    Within a block, every box that no box before it in the block suppresses is alive, given which of those
    are; this is repeated until nothing changes. Only the greedy result stays as it is, and the first k
    ranks are right after k repetitions at the latest, in practice all after a few.
    """
    count = boxes.shape[-2]
    block = min(block, count)
    spare = -count % block
    none = [(0, 0)] * (valid.ndim - 1)
    sides = _sides(jnp.pad(boxes, (*none, (0, spare), (0, 0))))
    alive = jnp.pad(valid, (*none, (0, spare)))
    ranks = jnp.arange(count + spare)
    before = jnp.arange(block)[:, None] < jnp.arange(block)

    def settle(number, alive):
        def current(values):
            return jax.lax.dynamic_slice_in_dim(values, number * block, block, axis=-1)

        def suppressed(kept, hit):
            return jnp.any(hit & kept[..., None], axis=-2)

        own = tuple(current(values) for values in sides)
        rows = tuple(values[..., None] for values in own)
        hit = _hit(rows, tuple(values[..., None, :] for values in own), iou_threshold) & before
        start = current(alive)

        def again(state):
            kept, _ = state
            return start & ~suppressed(kept, hit), kept

        kept, _ = jax.lax.while_loop(
            lambda state: jnp.any(state[0] != state[1]), again, again((start, start))
        )
        hit = _hit(rows, tuple(values[..., None, :] for values in sides), iou_threshold)
        later = ranks >= (number + 1) * block
        alive = alive & ~(suppressed(kept, hit) & later)
        return jax.lax.dynamic_update_slice_in_dim(alive, kept, number * block, axis=-1)

    longest = jnp.max(jnp.sum(valid, axis=-1))
    return jax.lax.fori_loop(0, -(-longest // block), settle, alive)[..., :count]


def _sides(boxes):
    """x1, y1, x2, y2 and areas of boxes [..., 4]."""
    return (*(boxes[..., i] for i in range(4)), area(boxes))


def _hit(first, second, iou_threshold):
    """Whether boxes, ``_sides`` that broadcast, overlap by more than the threshold."""
    x1, y1, x2, y2, areas = second
    width = jnp.minimum(x2, first[2]) - jnp.maximum(x1, first[0])
    height = jnp.minimum(y2, first[3]) - jnp.maximum(y1, first[1])
    overlap = jnp.maximum(width, 0) * jnp.maximum(height, 0)
    union = areas + first[4] - overlap
    return overlap > iou_threshold * union  # without the division


def class_wise_nms(
    boxes: jax.Array,
    scores: jax.Array,
    *,
    score_threshold: float,
    iou_threshold: float,
    pre_nms: int,
    keep: int,
    keep_per_class: int = 0,
) -> Detections:
    """SSD's post-processing of one image: threshold, top-k and NMS in each class, then top-k.

    Args:
        boxes: float32 [A, 4], x1 y1 x2 y2, shared by the classes.
        scores: float32 [A, K], without background. NaN counts as zero.
        score_threshold: only pairs with scores above it are candidates.
        iou_threshold: overlap above which the worse box of the same class is dropped.
        pre_nms: candidates of each class that enter NMS.
        keep: detections of the image over all classes, D.
        keep_per_class: detections of each class; 0: no limit.

    Returns:
        Detections of one image, arrays [D, …], best first.
    """
    if 0 in scores.shape:
        return _nothing(keep)
    pre_nms = min(pre_nms, len(boxes))
    scores = jnp.where(scores > score_threshold, scores, 0.0)  # False for NaN
    top, index = jax.lax.top_k(scores.T, pre_nms)  # [K, n]
    candidates = boxes[index]  # [K, n, 4]
    survivors = nms(candidates, top > 0, iou_threshold)
    if keep_per_class:
        survivors &= jnp.cumsum(survivors, axis=-1) <= keep_per_class
    top = jnp.where(survivors, top, 0.0).reshape(-1)
    best, flat = jax.lax.top_k(top, min(keep, top.size))
    if best.size < keep:  # fewer candidates than detections asked for
        best = jnp.pad(best, (0, keep - best.size))
        flat = jnp.pad(flat, (0, keep - flat.size))
    valid = best > 0
    return Detections(
        boxes=jnp.where(valid[:, None], candidates.reshape(-1, 4)[flat], 0.0),
        scores=best,
        labels=jnp.where(valid, (flat // pre_nms).astype(jnp.int32), 0),
        valid=valid,
    )


def candidates_nms(
    boxes: jax.Array,
    scores: jax.Array,
    labels: jax.Array,
    *,
    iou_threshold: float,
    keep: int,
    soft: str = "none",
    sigma: float = 0.5,
    min_score: float = 0.0,
    keep_per_class: int = 0,
) -> Detections:
    """Class-wise NMS of one image's candidates; keeps the best D of all classes.

    One step per detection takes the best candidate that is left and lowers the scores of those that it
    overlaps, so the work grows with D · n, neither the pairwise matrix nor a list per class exists, and
    candidates after the D-th detection are never examined. Labels are compared; moving the boxes of each
    class apart instead would round their coordinates.

    Args:
        boxes: float32 [n, 4], x1 y1 x2 y2, in any order; of equal scores the first is taken first.
        scores: float32 [n]; rows with scores of 0 and less, or NaN, are no candidates.
        labels: int32 [n].
        iou_threshold: overlap above which the worse box of the same class is dropped, or loses score
            ("linear").
        keep: detections, D.
        soft: one of ``SOFT``. "linear": scores of boxes that overlap by more than the threshold are
            multiplied by 1 - IoU; "gaussian": all scores by exp(-IoU² / sigma) (Bodla et al. 2017, eq. 2
            and 3). Detections then carry what is left of their scores.
        sigma: width of "gaussian".
        min_score: with a soft kind, boxes whose scores fall below it are dropped.
        keep_per_class: detections of each class; 0: no limit.

    Returns:
        Detections of one image, arrays [D, …], best first.
    """
    n = scores.size
    if not n:
        return _nothing(keep)
    if soft == "none":
        index, best = best_of_nms(
            boxes,
            scores,
            labels,
            iou_threshold,
            keep_per_class,
            keep=keep,
            limited=bool(keep_per_class),
        )
    else:

        def left(overlap: jax.Array, union: jax.Array, scores: jax.Array) -> jax.Array:
            iou = overlap / jnp.where(union > 0, union, 1.0)
            if soft == "linear":
                left = jnp.where(iou > iou_threshold, scores * (1 - iou), scores)
            else:
                left = scores * jnp.exp(-(iou**2) / sigma)
            return jnp.where((left < min_score) & (left < scores), 0.0, left)

        index, best = _in_turn(boxes, scores, labels, left, keep, keep_per_class or None)
    valid = best > 0
    return Detections(
        boxes=jnp.where(valid[:, None], boxes[index], 0.0),
        scores=best,
        labels=jnp.where(valid, labels[index], 0),
        valid=valid,
    )


@functools.partial(jax.jit, static_argnames=("keep", "limited"))
def best_of_nms(
    boxes: jax.Array,
    scores: jax.Array,
    labels: jax.Array,
    iou_threshold: Threshold,
    keep_per_class: int | jax.Array,
    *,
    keep: int,
    limited: bool,
) -> tuple[jax.Array, jax.Array]:
    """``candidates_nms`` that drops boxes, as one call, which exports know by its name.

    Args:
        boxes: float32 [n, 4], x1 y1 x2 y2, n from 1 on.
        scores: float32 [n].
        labels: int32 [n].
        iou_threshold: overlap above which the worse box of the same class is dropped.
        keep_per_class: detections of each class, where ``limited``.
        keep: detections, D.
        limited: whether classes have a limit.

    Returns:
        int32 [D], places among the candidates, best first; and float32 [D], scores, 0 where there are no
        more candidates.
    """

    def left(overlap: jax.Array, union: jax.Array, scores: jax.Array) -> jax.Array:
        return jnp.where(overlap > iou_threshold * union, 0.0, scores)  # without the division

    return _in_turn(boxes, scores, labels, left, keep, keep_per_class if limited else None)


def _in_turn(
    boxes: jax.Array,
    scores: jax.Array,
    labels: jax.Array,
    left: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    keep: int,
    keep_per_class: int | jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Takes the best candidate again and again; ``left`` is what overlap and union leave of a score."""
    scores = jnp.where(scores > 0, scores, 0.0)  # False for NaN
    x1, y1, x2, y2 = (boxes[:, i] for i in range(4))
    areas, places = area(boxes), jnp.arange(scores.size)

    def settle(index: jax.Array, scores: jax.Array) -> jax.Array:
        """Scores of the others once a candidate is taken."""
        width = jnp.minimum(x2, x2[index]) - jnp.maximum(x1, x1[index])
        height = jnp.minimum(y2, y2[index]) - jnp.maximum(y1, y1[index])
        overlap = jnp.maximum(width, 0) * jnp.maximum(height, 0)
        union = areas + areas[index] - overlap
        own = (labels == labels[index]) & (scores[index] > 0)
        lowered = jnp.where(own, left(overlap, union, scores), scores)
        return jnp.where(places == index, 0.0, lowered)

    def take(step: jax.Array, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        scores, index, best = state
        first = jnp.argmax(scores).astype(jnp.int32)
        index, best = index.at[step].set(first), best.at[step].set(scores[first])
        left = settle(first, scores)
        if keep_per_class is not None:
            same = jnp.sum((best > 0) & (labels[index] == labels[first]))
            left = jnp.where((labels == labels[first]) & (same >= keep_per_class), 0.0, left)
        return left, index, best

    nothing = [match_varying(scores, jnp.zeros(keep, kind)) for kind in (jnp.int32, scores.dtype)]
    _, index, best = jax.lax.fori_loop(0, keep, take, (scores, *nothing))
    return index, best


def best_pairs(
    scores: jax.Array, threshold: float, count: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The best (anchor, class) pairs of a level, as RetinaNet takes them (Lin et al. 2017b, sec. 4).

    Only the ``count`` anchors with the best single scores can have one of the ``count`` best pairs, so two
    short selections replace one over all A · K scores. The result is the same, ties included (the lower
    anchor, then the lower class, comes first).

    Args:
        scores: float32 [A, K]. NaN counts as zero.
        threshold: only pairs with scores above it are candidates.
        count: number of pairs, n.

    Returns:
        Scores float32 [n] (0 where there is no pair), anchors and classes int32 [n], with
        ``n = min(count, A · K)``.
    """
    num_anchors, num_classes = scores.shape
    if not scores.size:
        return jnp.zeros(0), jnp.zeros(0, jnp.int32), jnp.zeros(0, jnp.int32)
    scores = jnp.where(scores > threshold, scores, 0.0)  # False for NaN
    _, anchors = jax.lax.top_k(jnp.max(scores, axis=1), min(count, num_anchors))
    anchors = jnp.sort(anchors)
    best, index = jax.lax.top_k(scores[anchors].reshape(-1), min(count, anchors.size * num_classes))
    return best, anchors[index // num_classes], (index % num_classes).astype(jnp.int32)


def at_least(boxes: jax.Array, scores: jax.Array, side: float) -> jax.Array:
    """Scores [n] or [n, K] of boxes [n, 4], 0 where a side is below ``side`` pixels; 0: as they are."""
    if not side:
        return scores
    fits = jnp.min(boxes[:, 2:] - boxes[:, :2], axis=-1) >= side
    return jnp.where(fits if scores.ndim == 1 else fits[:, None], scores, 0.0)


def _nothing(keep: int) -> Detections:
    """No detections of one image."""
    return Detections(
        boxes=jnp.zeros((keep, 4)),
        scores=jnp.zeros(keep),
        labels=jnp.zeros(keep, jnp.int32),
        valid=jnp.zeros(keep, bool),
    )
