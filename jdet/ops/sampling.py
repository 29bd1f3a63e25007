"""Selection of the examples that enter a loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def hard_negatives(difficulty: jax.Array, eligible: jax.Array, count: jax.Array) -> jax.Array:
    """The ``count`` most difficult eligible examples of one image (SSD, sec. 2.2).

    >>> difficulty = jnp.array([0.1, 0.9, 0.5, 0.5, 0.7])
    >>> eligible = jnp.array([True, False, True, True, True])
    >>> hard_negatives(difficulty, eligible, jnp.array(2)).tolist()
    [False, False, True, False, True]

    The second example is the most difficult one, but not eligible; of the two with 0.5 the first is taken.

    Args:
        difficulty: float32 [A], larger is harder (cross-entropy against background in SSD).
        eligible: bool [A].
        count: int32 scalar, number of examples to take; fewer if fewer are eligible.

    Returns:
        bool [A], exactly ``min(count, number of eligible)`` of them True; of equal difficulties the lower
        index is taken.
    """
    if not eligible.size:
        return eligible
    key = jnp.where(eligible, difficulty, -jnp.inf)
    count = jnp.minimum(count, jnp.sum(eligible))
    ordered = jnp.sort(key)  # ascending
    cut = ordered[jnp.clip(key.size - count, 0, key.size - 1)]
    above = key > cut
    ties = eligible & (key == cut)
    room = count - jnp.sum(above)
    take = above | (ties & (jnp.cumsum(ties) <= room))
    return take & (count > 0)
