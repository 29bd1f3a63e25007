"""Losses per element; reduction, masking and normalising belong to the detector."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def smooth_l1(prediction: jax.Array, target: jax.Array, beta: float = 1.0) -> jax.Array:
    """Huber-like loss of Fast R-CNN (Girshick 2015, eq. 3): ``d²/2β`` below ``beta``, else ``|d|-β/2``.

    Shapes broadcast; float32 out.
    """
    difference = jnp.abs(prediction.astype(jnp.float32) - target)
    inner = jnp.minimum(difference, beta)
    return inner * (difference - 0.5 * inner) / beta


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy of integer ``labels`` [...] under ``logits`` [..., K]; float32 [...]."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen
