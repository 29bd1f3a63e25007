"""Exact greedy non-maximum suppression with fixed shapes, on the device."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jdet.ops.boxes import area


class Kept(NamedTuple):
    """Survivors of a class-wise suppression, best first.

    Attributes:
        boxes: float32 [D, 4].
        scores: float32 [D]; zeros where not valid.
        labels: int32 [D]; zeros where not valid.
        valid: bool [D].
    """

    boxes: jax.Array
    scores: jax.Array
    labels: jax.Array
    valid: jax.Array


def nms(boxes: jax.Array, valid: jax.Array, iou_threshold: float) -> jax.Array:
    """Greedy suppression of boxes that are already sorted, best first.

    A box is kept unless it overlaps a kept box before it by more than ``iou_threshold``. One loop
    step per rank settles that rank in all independent sets at once and compares it with the boxes
    after it, so the pairwise matrix never exists in memory.

    Args:
        boxes: float32 [..., n, 4], x1 y1 x2 y2, sorted by score; leading axes are independent sets.
        valid: bool [..., n], which rows exist; in each set they come first.
        iou_threshold: overlap above which the later box is dropped.

    Returns:
        bool [..., n], the survivors.
    """
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    areas = area(boxes)
    ranks = jnp.arange(boxes.shape[-2])

    def settle(rank, alive):
        def current(values):
            return jax.lax.dynamic_slice_in_dim(values, rank, 1, axis=-1)

        width = jnp.minimum(x2, current(x2)) - jnp.maximum(x1, current(x1))
        height = jnp.minimum(y2, current(y2)) - jnp.maximum(y1, current(y1))
        overlap = jnp.maximum(width, 0) * jnp.maximum(height, 0)
        union = areas + current(areas) - overlap
        hit = overlap > iou_threshold * union  # without the division
        return alive & ~(hit & (ranks > rank) & current(alive))

    return jax.lax.fori_loop(0, jnp.max(jnp.sum(valid, axis=-1)), settle, valid)


def class_wise_nms(
    boxes: jax.Array,
    scores: jax.Array,
    *,
    score_threshold: float,
    iou_threshold: float,
    pre_nms: int,
    keep: int,
) -> Kept:
    """SSD's post-processing of one picture: threshold, top-k and NMS in each class, then top-k.

    Args:
        boxes: float32 [A, 4], x1 y1 x2 y2, shared by the classes.
        scores: float32 [A, K], without background. NaN counts as zero.
        score_threshold: only scores above it take part.
        iou_threshold: overlap above which the worse box of the same class is dropped.
        pre_nms: candidates of each class that enter the suppression.
        keep: detections of the picture over all classes, D.

    Returns:
        Kept, [D] each.
    """
    num_boxes, num_classes = scores.shape
    pre_nms = min(pre_nms, num_boxes)
    scores = jnp.where(scores > score_threshold, scores, 0.0)  # False for NaN
    top, index = jax.lax.top_k(scores.T, pre_nms)  # [K, n]
    candidates = boxes[index]  # [K, n, 4]
    survivors = nms(candidates, top > 0, iou_threshold)
    top = jnp.where(survivors, top, 0.0).reshape(-1)
    best, flat = jax.lax.top_k(top, min(keep, top.size))
    if best.size < keep:  # fewer candidates than detections asked for
        best = jnp.pad(best, (0, keep - best.size))
        flat = jnp.pad(flat, (0, keep - flat.size))
    valid = best > 0
    return Kept(
        boxes=jnp.where(valid[:, None], candidates.reshape(-1, 4)[flat], 0.0),
        scores=best,
        labels=jnp.where(valid, (flat // pre_nms).astype(jnp.int32), 0),
        valid=valid,
    )
