"""Sides of resized images in whole numbers, to the last bit what a host computes in double precision.

A host takes ``int(side * (n / d))`` or, to the nearest, ``int(side * (n / d) + 0.5)``. The quotient of
whole numbers, ``side · n / d``, differs from that only where it is itself whole, or a half: there it
matters on which side of it the two roundings of double precision come out. Programs for accelerators have
no such numbers, but the remainders of the division say it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SIDE = 1 << 15
"""From here on sides are those of exact quotients: the remainders would not fit into 32 bits."""

_STEP = 14
"""Bits by which a remainder is shifted at once."""


def scaled(side: jax.Array, numerator: Any, divisor: jax.Array, *, nearest: bool) -> jax.Array:
    """``int(side * (numerator / divisor))`` of a host, or with ``+ 0.5``, int32 [n].

    Args:
        side: int32 [n], from 1 on.
        numerator: whole number from 1 to 16,384.
        divisor: int32 [], from 1 on.
        nearest: whether a half is added before the fraction is dropped.
    """
    numerator = jnp.asarray(numerator, jnp.int32)
    if nearest:
        above, below = 2 * side * numerator + divisor, 2 * divisor
    else:
        above, below = side * numerator, divisor
    whole = jax.lax.div(above, below)
    at_end = jax.lax.rem(above, below) == 0
    return whole - (at_end & ~_reached(side, numerator, divisor)).astype(jnp.int32)


def _reached(side: jax.Array, numerator: jax.Array, divisor: jax.Array) -> jax.Array:
    """Whether ``side * (numerator / divisor)`` in double precision is at least its exact value.

    That is whole or a half. With ``2^j <= n / d < 2^(j+1)`` the quotient has 52 - j bits after the point,
    and the remainder of ``n · 2^(52-j)`` says how it was rounded: up, which is enough, as there are no ties
    (n / d would have 54 bits); or down, by ``remainder / d`` of the last bit. The product then comes out at
    its exact value if that, ``side`` times, is at most half of the last bit below the value.
    """
    exponent = _log2(numerator, divisor)
    left = jax.lax.rem(numerator, divisor)
    spare = jnp.int32(52 - 2 * _STEP) - exponent  # 10 to 38, in parts of 14 at most
    parts = [jnp.clip(spare - i * _STEP, 0, _STEP) for i in range(3)]
    for part in (jnp.int32(_STEP), jnp.int32(_STEP), *parts):
        left = jax.lax.rem(left * _power(part), divisor)
    up = (2 * left >= divisor) | (left == 0)
    product = side * numerator
    value = _log2(product, divisor)
    exact = product * _power(-jnp.minimum(value, 0)) == divisor * _power(jnp.maximum(value, 0))
    # Of a power of two, the last bit below is half of that above.
    shift = value - exponent - 1 - exact.astype(jnp.int32)
    low, high = _power(jnp.maximum(-shift, 0)), _power(jnp.maximum(shift, 0))
    large = (side >= SIDE) | (divisor >= SIDE)
    return up | large | (side * left * low <= divisor * high)


def _log2(numerator: jax.Array, divisor: jax.Array) -> jax.Array:
    """The whole part of the logarithm of a quotient from 2^-14 to 2^15, rounded down, int32."""
    powers = np.array([1 << i for i in range(15)], np.int32)
    at_least = numerator[..., None] >= divisor * powers
    reached = numerator[..., None] * powers >= divisor
    above, below = (jnp.sum(each.astype(jnp.int32), -1) for each in (at_least, reached))
    return jnp.where(numerator >= divisor, above - 1, below - 15)


def _power(exponent: jax.Array) -> jax.Array:
    """2 to a power of 0 … 14, int32."""
    return jnp.take(jnp.asarray(1 << np.arange(15), jnp.int32), exponent, mode="clip")
