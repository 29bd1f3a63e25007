"""The loss of SSD (Liu et al. 2016, sec. 2.2; Caffe ``MultiBoxLoss``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdet.ops import boxes, coding, losses, matching, sampling


class Samples(NamedTuple):
    """How many default boxes of each image a loss counts, float32 [B] each.

    Attributes:
        positives: matched to an object.
        negatives: picked as hard negatives.
        background: all that could have been.
    """

    positives: jax.Array
    negatives: jax.Array
    background: jax.Array


def multibox_loss(
    offsets: jax.Array,
    logits: jax.Array,
    priors: jax.Array | np.ndarray,
    ground_truth: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    *,
    iou_threshold: float = 0.5,
    negative_ratio: float = 3.0,
    min_negatives: int = 0,
    ignored: jax.Array | None = None,
    ignore_iof: float = 0.0,
    class_weights: Sequence[float] = (),
) -> tuple[jax.Array, jax.Array, Samples]:
    """Matching, hard negative mining and both losses of SSD, image by image.

    Args:
        offsets: float32 [B, A, 4].
        logits: float32 [B, A, K + 1], channel 0 is background.
        priors: float32 [A, 4], cx cy w h, pixels.
        ground_truth: float32 [B, N, 4], x1 y1 x2 y2, pixels.
        labels: int32 [B, N], 0 … K-1.
        valid: bool [B, N], which rows are objects to learn.
        iou_threshold: of positives beside the bipartite matches.
        negative_ratio: hard negatives per positive of the same image.
        min_negatives: of each image at the least.
        ignored: bool [B, N], which rows are regions that are not background either; None: there are none.
        ignore_iof: share of a default box in such a region above which it takes no part.
        class_weights: of the K classes, factors of the classification loss of their positives; (): none.

    Returns:
        Sums of the box loss and of the classification loss, float32 [B] each, and what they count.
    """
    priors = jnp.asarray(priors)
    corners = boxes.cxcywh_to_xyxy(priors)

    def one_image(offsets, logits, ground_truth, labels, valid, ignored):
        overlap = boxes.pairwise_iou(ground_truth, corners)
        left_out = jnp.zeros(len(priors), bool)
        if ignored is not None:
            left_out = matching.inside_ignored(corners, ground_truth, ignored, ignore_iof)
            overlap = jnp.where(left_out, 0.0, overlap)
        match = matching.ssd.match(overlap, valid, iou_threshold)
        target = coding.encode(ground_truth[match.index], priors)
        # What is masked below must be finite for its gradient to be.
        predicted = jnp.where(match.matched[:, None], offsets, 0.0)
        loc = jnp.sum(losses.smooth_l1(predicted, target), axis=-1)
        classes = jnp.where(match.matched, labels[match.index] + 1, 0)
        cls = optax.losses.softmax_cross_entropy_with_integer_labels(logits, classes)
        positives = jnp.sum(match.matched)
        background = ~match.matched & (match.overlap < iou_threshold) & ~left_out
        negatives = sampling.hard_negatives(
            jax.lax.stop_gradient(cls),
            background,
            jnp.maximum((negative_ratio * positives).astype(jnp.int32), min_negatives),
        )
        if class_weights:
            cls = cls * losses.class_weight(class_weights, classes - 1)
        return (
            jnp.sum(jnp.where(match.matched, loc, 0.0)),
            jnp.sum(jnp.where(match.matched | negatives, cls, 0.0)),
            Samples(
                *(jnp.sum(x).astype(jnp.float32) for x in (match.matched, negatives, background))
            ),
        )

    return jax.vmap(one_image)(offsets, logits, ground_truth, labels, valid, ignored)
