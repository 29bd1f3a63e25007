"""Group normalisation with a custom gradient.

As in ``jdet.nn.batch_norm``, the forward pass reads the activations twice and the backward pass twice. Only
the input is kept between them, in its own dtype, where automatic differentiation would keep several float32
arrays of its size.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jdet.ops.vma import match_varying


def group_norm(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    *,
    groups: int,
    eps: float,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Normalises every image by mean and variance of groups of channels (Wu & He 2018).

    Args:
        x: float32 or bfloat16 [B, …, C].
        scale: float32 [C].
        bias: float32 [C].
        groups: number of consecutive parts of the channels; divides C.
        eps: added to the variance.
        mask: bool [B, …, 1], cells that enter the statistics; None: all.

    Returns:
        Like ``x``.
    """
    scale, bias = match_varying(x, scale), match_varying(x, bias)
    return _normalise(x, scale, bias, mask, groups, eps)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _normalise(x, scale, bias, mask, groups, eps):
    return _forward(x, scale, bias, mask, groups, eps)[0]


def _forward(x, scale, bias, mask, groups, eps):
    wide = x.astype(jnp.float32)
    axes = tuple(range(1, x.ndim - 1))
    counted = wide if mask is None else jnp.where(mask, wide, 0)
    size = x.shape[-1] // groups  # channels of a group
    if mask is None:
        count = x.size // x.shape[0] // x.shape[-1] * size
    else:
        count = size * jnp.maximum(jnp.sum(mask, axes, dtype=jnp.float32), 1)  # [B, 1]
    mean = _of_groups(jnp.sum(counted, axes), groups) / count
    square = _of_groups(jnp.sum(counted * counted, axes), groups) / count
    inverse = jax.lax.rsqrt(jnp.maximum(square - mean * mean, 0) + eps)
    factor = scale * inverse
    y = wide * _wide(factor, x) + _wide(bias - mean * factor, x)
    return y.astype(x.dtype), (x, scale, mask, count, mean, inverse)


def _backward(groups, eps, saved, dy):
    del eps
    x, scale, mask, count, mean, inverse = saved
    dy = dy.astype(jnp.float32)
    centred = x.astype(jnp.float32) - _wide(mean, x)
    axes = tuple(range(1, x.ndim - 1))
    sums = jnp.sum(dy, axes), jnp.sum(dy * centred, axes)  # [B, C]
    shift = -inverse * _of_groups(scale * sums[0], groups) / count
    slope = -(inverse**3) * _of_groups(scale * sums[1], groups) / count
    of_statistics = centred * _wide(slope, x) + _wide(shift, x)
    if mask is not None:
        of_statistics = jnp.where(mask, of_statistics, 0)
    dx = dy * _wide(scale * inverse, x) + of_statistics
    return dx.astype(x.dtype), jnp.sum(sums[1] * inverse, 0), jnp.sum(sums[0], 0), None


_normalise.defvjp(_forward, _backward)


def _of_groups(values: jax.Array, groups: int) -> jax.Array:
    """Sums over the channels of each group, repeated for each of them; [B, C] to [B, C]."""
    parts = values.reshape(values.shape[0], groups, -1)
    return jnp.broadcast_to(jnp.sum(parts, -1, keepdims=True), parts.shape).reshape(values.shape)


def _wide(values: jax.Array, x: jax.Array) -> jax.Array:
    """[B, C] shaped to broadcast against x [B, …, C]."""
    return values.reshape(x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])
