"""Batch norm."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def batch_norm_train(x, scale, bias, *, eps, axis_name=None, groups=1):
    """Simple."""
    c = x.shape[-1]
    xs = x.astype(jnp.float32).reshape(groups, -1, c)
    st = jnp.stack([xs.mean(1), (xs * xs).mean(1)])
    if axis_name:
        st = jax.lax.pmean(st, axis_name)
    mean, var = st[0], st[1] - st[0] ** 2
    y = (xs - mean[:, None]) * jax.lax.rsqrt(var + eps)[:, None] * scale + bias
    if groups == 1:
        mean, var = mean[0], var[0]
    return (
        y.reshape(x.shape).astype(x.dtype),
        jax.lax.stop_gradient(mean),
        jax.lax.stop_gradient(var),
    )
