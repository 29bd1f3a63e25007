"""Merging of detections from several passes over one image: box voting and related rules."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdet.types import Detections

KINDS = ("voting", "soft_voting", "nms")


def overlap(
    a: tuple[jax.Array, ...], b: tuple[jax.Array, ...], pixel_offset: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Intersection and union of boxes given as (x1, y1, x2, y2), each broadcastable.

    Args:
        a: coordinates.
        b: coordinates.
        pixel_offset: added to every width and height: 1 for the "+1" convention of inclusive pixels,
            0 for continuous boxes.
    """
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a, b
    width = jnp.minimum(ax2, bx2) - jnp.maximum(ax1, bx1) + pixel_offset
    height = jnp.minimum(ay2, by2) - jnp.maximum(ay1, by1) + pixel_offset
    both = jnp.maximum(width, 0) * jnp.maximum(height, 0)
    area_a = (ax2 - ax1 + pixel_offset) * (ay2 - ay1 + pixel_offset)
    area_b = (bx2 - bx1 + pixel_offset) * (by2 - by1 + pixel_offset)
    return both, area_a + area_b - both


def cluster(
    boxes: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    *,
    iou_threshold: float,
    pixel_offset: float = 0.0,
    at_threshold: bool = True,
) -> jax.Array:
    """Greedy clusters of boxes that are sorted, best first.

    The best box that is in no cluster yet starts one and takes all boxes of its class that overlap it and
    are in no cluster. One loop step does that in every image, whatever the class, so the number of steps
    is the number of clusters and the pairwise matrix never exists in memory.

    Args:
        boxes: float32 [B, M, 4], x1 y1 x2 y2, sorted by score in each image.
        labels: int32 [B, M].
        valid: bool [B, M], which rows exist.
        iou_threshold: overlap from which a box joins the cluster of a better box.
        pixel_offset: added to widths and heights (see ``overlap``).
        at_threshold: a box whose overlap is exactly the threshold joins too.

    Returns:
        int32 [B, M], rank of the best box of each box's cluster (its own rank for the best box); M where
        not valid.
    """
    corners = tuple(boxes[..., i] for i in range(4))
    ranks = jnp.arange(boxes.shape[1])

    def more(owner):
        return jnp.any(owner < 0)

    def begin(owner):
        free = owner < 0
        best = jnp.argmax(free, axis=1, keepdims=True)  # the first box in no cluster

        def current(values):
            return jnp.take_along_axis(values, best, axis=1)

        both, union = overlap(tuple(map(current, corners)), corners, pixel_offset)
        limit = iou_threshold * union
        hit = (both >= limit if at_threshold else both > limit) & (labels == current(labels))
        hit |= ranks == best  # a box without area overlaps nothing, not even itself
        return jnp.where(free & hit, best, owner)

    owner = jnp.where(valid, -1, boxes.shape[1]).astype(jnp.int32)
    return jax.lax.while_loop(more, begin, owner)


class Merged(NamedTuple):
    """Merged detections, and what each was made of.

    Attributes:
        detections: arrays [B, D, …], best first.
        source: int32 [B, D], the given box that each comes from: the best of its cluster, or, of
            "soft_voting", any.
        owner: int32 [B, M], of each given box the best one of its cluster; M where not valid.
    """

    detections: Detections
    source: jax.Array
    owner: jax.Array


def merge(boxes: Any, scores: Any, labels: Any, valid: Any, **options: Any) -> Detections:
    """One set of detections from those of several passes: those of ``merge_traced``, with its arguments."""
    return merge_traced(boxes, scores, labels, valid, **options).detections


def merge_traced(
    boxes: jax.Array,
    scores: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    *,
    kind: str,
    keep: int,
    iou_threshold: float,
    pixel_offset: float = 0.0,
    score_threshold: float = 0.0,
) -> Merged:
    """One set of detections from those of several passes, class by class.

    * "voting" (Gidaris & Komodakis 2015; as in RefineDet's multi-scale test): every greedy cluster
      becomes one box, the mean of its boxes weighted by their scores, with the best score.
    * "soft_voting": in addition every other box of the cluster is kept with its score times
      (1 - overlap with the cluster's best box), if that reaches ``score_threshold``.
    * "nms": only the best box of every cluster is kept; a box whose overlap is exactly the threshold does
      not join.

    Args:
        boxes: float32 [B, M, 4], x1 y1 x2 y2, in any order.
        scores: float32 [B, M]; boxes with scores of 0 and less, or NaN, are left out.
        labels: int32 [B, M].
        valid: bool [B, M].
        kind: one of ``KINDS``.
        keep: number of boxes returned per image, D.
        iou_threshold: overlap from which boxes of a class are merged.
        pixel_offset: added to widths and heights for the overlap (see ``overlap``).
        score_threshold: lowest score kept by "soft_voting".

    Raises:
        ValueError: no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}; known are {', '.join(KINDS)}")
    count = boxes.shape[1]
    if not count:  # a row that is not valid stands for none
        boxes, scores, labels, valid = (
            jnp.pad(x, ((0, 0), (0, 1), *[(0, 0)] * (x.ndim - 2)))
            for x in (boxes, scores, labels, valid)
        )
        count = 1
    valid = valid & (scores > 0)  # False for NaN
    scores = jnp.where(valid, scores, 0.0)
    order = jnp.argsort(-scores, axis=1, stable=True)  # equal scores keep their order
    boxes = jnp.take_along_axis(boxes, order[..., None], axis=1)
    scores, labels, valid = (jnp.take_along_axis(x, order, axis=1) for x in (scores, labels, valid))
    owner = cluster(
        boxes,
        labels,
        valid,
        iou_threshold=iou_threshold,
        pixel_offset=pixel_offset,
        at_threshold=kind != "nms",
    )
    first = owner == jnp.arange(count)
    results, result_scores = boxes, jnp.where(first, scores, 0.0)
    if kind != "nms":
        weighted = jnp.concatenate([boxes * scores[..., None], scores[..., None]], axis=-1)
        sums = jax.vmap(lambda x, to: jnp.zeros_like(x).at[to].add(x, mode="drop"))(weighted, owner)
        voted = sums[..., :4] / jnp.maximum(sums[..., 4:], jnp.finfo(jnp.float32).tiny)
        results = jnp.where(first[..., None], voted, boxes)
    if kind == "soft_voting":
        best = jnp.take_along_axis(boxes, jnp.minimum(owner, count - 1)[..., None], axis=1)
        theirs, own = (tuple(x[..., i] for i in range(4)) for x in (best, boxes))
        both, union = overlap(theirs, own, pixel_offset)
        softened = scores * (1 - both / jnp.maximum(union, jnp.finfo(jnp.float32).tiny))
        stays = valid & ~first & (softened >= score_threshold)
        result_scores = jnp.where(stays, softened, result_scores)
    best, index = jax.lax.top_k(result_scores, min(keep, count))
    if count < keep:
        best, index = (jnp.pad(x, ((0, 0), (0, keep - count))) for x in (best, index))
    kept = best > 0
    detections = Detections(
        boxes=jnp.where(kept[..., None], jnp.take_along_axis(results, index[..., None], 1), 0.0),
        scores=best,
        labels=jnp.where(kept, jnp.take_along_axis(labels, index, 1), 0),
        valid=kept,
    )
    rows = jnp.pad(order, ((0, 0), (0, 1)), constant_values=count)  # of each rank, and of none
    owners = jnp.take_along_axis(rows, owner, axis=1)
    return Merged(
        detections=detections,
        source=jnp.take_along_axis(order, index, axis=1),
        owner=jax.vmap(lambda to, value: jnp.zeros_like(value).at[to].set(value))(order, owners),
    )
