"""Choice of the examples that enter a loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def hard_negatives(difficulty: jax.Array, eligible: jax.Array, count: jax.Array) -> jax.Array:
    """The ``count`` most difficult eligible examples of one image (SSD, sec. 2.2).

    Args:
        difficulty: float32 [A], larger is harder (cross-entropy against background in SSD).
        eligible: bool [A].
        count: int32 scalar, how many to take; fewer are taken where fewer are eligible.

    Returns:
        bool [A]. Among equals the lower index wins, so exactly ``min(count, eligible)`` are taken.
    """
    key = jnp.where(eligible, difficulty, -jnp.inf)
    count = jnp.minimum(count, jnp.sum(eligible))
    ordered = jnp.sort(key)  # ascending
    cut = ordered[jnp.clip(key.size - count, 0, key.size - 1)]
    above = key > cut
    ties = eligible & (key == cut)
    room = count - jnp.sum(above)
    take = above | (ties & (jnp.cumsum(ties) <= room))
    return take & (count > 0)
