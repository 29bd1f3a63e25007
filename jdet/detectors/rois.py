"""Which proposals the second stage learns from: assignment of objects, and samples of fixed size."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdet.ops import boxes, matching, nms, sampling


class Candidates(NamedTuple):
    """Boxes that may become RoIs of training, for every image: ground truth first, then proposals.

    Attributes:
        boxes: float32 [B, N + P, 4], x1 y1 x2 y2 in pixels of the network input.
        valid: bool [B, N + P].
        match: int32 [B, N + P], index of the object; 0 where not positive.
        labels: int32 [B, N + P], 0 for background, 1 + k for class k.
        positive: bool [B, N + P]; all others that are valid are background.
    """

    boxes: Any
    valid: Any
    match: Any
    labels: Any
    positive: Any

    @property
    def negative(self) -> jax.Array:
        """Background, bool [B, N + P]."""
        return self.valid & ~self.positive


class RoIs(NamedTuple):
    """What a stage learns from, S slots for every image: positives, then negatives, then fillers.

    Attributes:
        boxes: float32 [B, S, 4], x1 y1 x2 y2 in pixels of the network input.
        labels: int32 [B, S], 0 for background, 1 + k for class k.
        match: int32 [B, S], index of the object; 0 where not positive.
        target: float32 [B, S, 4], box of the object; the RoI itself where not positive.
        positive: bool [B, S].
        valid: bool [B, S], not a filler.
        is_object: bool [B, S], a ground-truth box itself.
    """

    boxes: Any
    labels: Any
    match: Any
    target: Any
    positive: Any
    valid: Any
    is_object: Any


def match_candidates(
    proposals: jax.Array,
    there: jax.Array,
    ground_truth: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    *,
    iou: float,
    low_quality: str,
) -> Candidates:
    """Puts ground truth before proposals and assigns objects to all of them (MMDetection's rule).

    Args:
        proposals: float32 [B, P, 4], x1 y1 x2 y2, pixels.
        there: bool [B, P], which of them exist.
        ground_truth: float32 [B, N, 4].
        labels: int32 [B, N], 0 … K-1.
        valid: bool [B, N], which rows are objects to learn.
        iou: overlap from which a candidate is positive, below which it is background.
        low_quality: as in ``matching.max_iou``, for objects whose best overlap reaches ``iou``.
    """
    candidates = jnp.concatenate([ground_truth, proposals], axis=1)
    exists = jnp.concatenate([valid, there], axis=1)

    def one_image(proposals, there, ground_truth, valid):
        # Objects take no part here: each would be its own best candidate, and ``low_quality`` say nothing.
        match = matching.max_iou.assign(
            ground_truth,
            valid,
            lambda rows: jnp.where(there, boxes.pairwise_iou(rows, proposals), 0.0),
            positive_iou=iou,
            negative_iou=iou,
            low_quality=low_quality,
            min_pos_iou=iou,
        )
        # An object is assigned to itself, also where another one has the same box.
        own = jnp.where(valid, jnp.arange(len(valid), dtype=jnp.int32), matching.BELOW)
        return jnp.concatenate([own, match])

    match = jax.vmap(one_image)(proposals, there, ground_truth, valid)
    positive = exists & (match >= 0)
    match = jnp.where(positive, match, 0)
    own = _rows(labels, match) if labels.shape[1] else match
    return Candidates(
        boxes=candidates,
        valid=exists,
        match=match,
        labels=jnp.where(positive, own + 1, 0),
        positive=positive,
    )


def take_rois(candidates: Candidates, sample: sampling.Sample, ground_truth: jax.Array) -> RoIs:
    """The RoIs of a sample.

    Args:
        candidates: of ``match_candidates``.
        sample: slots [B, S] of candidates.
        ground_truth: float32 [B, N, 4], x1 y1 x2 y2, pixels.
    """
    corners = _rows(candidates.boxes, sample.index)
    match = jnp.where(sample.positive, _rows(candidates.match, sample.index), 0)
    target = _rows(ground_truth, match) if ground_truth.shape[1] else corners
    return RoIs(
        boxes=corners,
        labels=jnp.where(sample.positive, _rows(candidates.labels, sample.index), 0),
        match=match,
        target=jnp.where(sample.positive[..., None], target, corners),
        positive=sample.positive,
        valid=sample.valid,
        is_object=sample.valid & (sample.index < ground_truth.shape[1]),
    )


def _rows(values: jax.Array, index: jax.Array) -> jax.Array:
    """Rows [B, S, …] of arrays [B, n, …], by index [B, S]."""
    return jax.vmap(lambda values, index: values[index])(values, index)


def hardest_apart(
    corners: jax.Array, loss: jax.Array, positive: jax.Array, negative: jax.Array, count: int
) -> sampling.Sample:
    """Online hard example mining as published (Shrivastava et al. 2016, sec. 4.2), of one image.

    Of RoIs that overlap by more than 0.7 only the one with the highest loss counts, and of those the
    ``count`` with the highest losses are taken, positives and negatives alike.

    Args:
        corners: float32 [n, 4], RoIs.
        loss: float32 [n], at least 0.
        positive: bool [n].
        negative: bool [n], apart from the positives.
        count: slots.
    """
    best, order = jax.lax.top_k(jnp.where(positive | negative, loss, -1.0), loss.size)
    apart = nms.nms(corners[order], best >= 0, 0.7)
    hardest = apart & (jnp.cumsum(apart) <= count)
    taken = jnp.zeros_like(positive).at[order].set(hardest)
    return sampling.balanced_sample(loss, taken & positive, taken & negative, count, count)
