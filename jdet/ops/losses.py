"""Losses per element; reduction, masking and normalising belong to the detector."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jdet.ops.boxes import paired_iou


def smooth_l1(prediction: jax.Array, target: jax.Array, beta: float = 1.0) -> jax.Array:
    """Huber-like loss of Fast R-CNN (Girshick 2015, eq. 3): ``d²/2β`` below ``beta``, else ``|d|-β/2``.

    Shapes broadcast; float32 out.
    """
    difference = jnp.abs(prediction.astype(jnp.float32) - target)
    inner = jnp.minimum(difference, beta)
    return inner * (difference - 0.5 * inner) / beta


def l1(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Absolute difference; shapes broadcast, float32 out."""
    return jnp.abs(prediction.astype(jnp.float32) - target)


def iou_loss(prediction: jax.Array, target: jax.Array, kind: str = "giou") -> jax.Array:
    """One minus the overlap of boxes [..., 4], x1 y1 x2 y2, with their targets; float32 [...].

    ``kind`` is "iou", "giou" (Rezatofighi et al. 2019), "diou" or "ciou" (Zheng et al. 2020), or
    "log_iou": minus the logarithm of the overlap (Yu et al. 2016, FCOS as published), at most that of
    1e-6.
    """
    prediction = prediction.astype(jnp.float32)
    if kind == "log_iou":
        return -jnp.log(jnp.maximum(paired_iou(prediction, target), 1e-6))
    return 1 - paired_iou(prediction, target, kind)


def sigmoid_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy of independent decisions with probabilities 0 … 1 as targets; float32 [...]."""
    logits = logits.astype(jnp.float32)
    return jax.nn.softplus(logits) - targets * logits


def sigmoid_focal_loss(
    logits: jax.Array, targets: jax.Array, alpha: float = 0.25, gamma: float = 2.0
) -> jax.Array:
    """Focal loss of independent binary decisions (Lin et al. 2017b, eq. 5).

    Written in logarithms, so that neither the loss nor its gradient overflows for any logit.

    Args:
        logits: [...].
        targets: bool [...], or 0 and 1.
        alpha: weight of the positives, 1 - alpha that of the negatives; below 0: neither is weighted.
        gamma: exponent of the probability of being wrong; 0 is the cross-entropy.

    Returns:
        float32 [...].
    """
    return _focal_loss(logits, targets.astype(bool), alpha, gamma)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _focal_loss(logits, positive, alpha, gamma):
    return _focal_and_slope(logits, positive, alpha, gamma)[0]


@_focal_loss.defjvp
def _focal_tangent(alpha, gamma, primals, tangents):
    logits, positive = primals
    loss, slope = _focal_and_slope(logits, positive, alpha, gamma)
    return loss, slope * tangents[0]


def _focal_and_slope(logits, positive, alpha, gamma):
    """From the same exponentials: the backward pass keeps one array, where JAX would keep four."""
    sign = jnp.where(positive, -1.0, 1.0)
    share = jnp.where(positive, alpha, 1 - alpha) if alpha >= 0 else 1.0
    wrong = sign * logits.astype(jnp.float32)  # logit of being wrong
    entropy = jax.nn.softplus(wrong)
    probability = jnp.exp(wrong - entropy)
    if not gamma:
        return share * entropy, share * sign * probability
    focus = share * probability**gamma
    slope = focus * (probability + gamma * entropy * jnp.exp(-entropy))
    return focus * entropy, sign * slope


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy of integer ``labels`` [...] under ``logits`` [..., K]; float32 [...]."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen
