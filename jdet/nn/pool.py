"""Max pooling."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def max_pool(x, window, strides=None, padding=0, *, ceil=False):
    """NHWC."""
    s = strides or window
    pads = []
    for n in x.shape[1:3]:
        o = (n + 2 * padding - window + (s - 1 if ceil else 0)) // s + 1
        if ceil and padding and (o - 1) * s >= n + padding:
            o -= 1
        pads.append((padding, max(0, (o - 1) * s + window - n - padding)))
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, s, s, 1), ((0, 0), *pads, (0, 0))
    )
