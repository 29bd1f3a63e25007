"""Selection of the examples that enter a loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


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


class Sample(NamedTuple):
    """Examples of one image in a fixed number of slots: positives first, then negatives, then nothing.

    Attributes:
        index: int32 [n], the example of each slot; meaningless where not ``valid``.
        positive: bool [n].
        valid: bool [n], the slot holds an example.
    """

    index: Any
    positive: Any
    valid: Any


def balanced_sample(
    rank: jax.Array, positive: jax.Array, negative: jax.Array, count: int, most_positives: int
) -> Sample:
    """The positives and negatives of one image that enter a loss (Ren et al. 2015, sec. 3.1.3).

    As many positives as there are, ``most_positives`` at the most, and negatives in all other places. Where
    there are too few negatives, slots remain empty.

    >>> rank = jnp.array([0.3, 0.9, 0.5, 0.2, 0.6, 0.8])
    >>> positive = jnp.array([True, False, True, True, False, False])
    >>> sample = balanced_sample(rank, positive, ~positive, 4, 2)
    >>> sample.index.tolist(), sample.positive.tolist()
    ([2, 0, 1, 5], [True, True, False, False])

    Two of the three positives are taken, those of the highest rank, and two of the negatives.

    Args:
        rank: float32 [A], at least 0, the highest are taken first: random numbers, or losses where the
            hardest examples are wanted (Shrivastava et al. 2016).
        positive: bool [A].
        negative: bool [A], apart from the positives.
        count: slots, n.
        most_positives: of them.
    """

    def best(group: jax.Array, most: int) -> tuple[jax.Array, jax.Array]:
        most = min(most, rank.size)
        found, index = jax.lax.top_k(jnp.where(group, rank, -1.0), most)
        return index.astype(jnp.int32), jnp.sum(found >= 0)

    if not rank.size:
        nothing = jnp.zeros(count, bool)
        return Sample(index=jnp.zeros(count, jnp.int32), positive=nothing, valid=nothing)
    of_positives, positives = best(positive, min(most_positives, count))
    of_negatives, negatives = best(negative, count)
    slot = jnp.arange(count)
    index = jnp.where(
        slot < positives,
        of_positives[jnp.minimum(slot, of_positives.size - 1)],
        of_negatives[jnp.clip(slot - positives, 0, of_negatives.size - 1)],
    )
    valid = slot < jnp.minimum(positives + negatives, count)
    return Sample(index=index, positive=slot < positives, valid=valid)


def anchor_ids(anchors: np.ndarray) -> np.ndarray:
    """A number for every anchor, which depends on the anchor alone; float32 [A, 4] to uint32 [A]."""
    found = np.zeros(len(anchors), np.uint32)
    for column in np.ascontiguousarray(anchors, np.float32).view(np.uint32).T:
        found = _mixed(found ^ column)
    return found


def noise(key: jax.Array, ids: np.ndarray) -> jax.Array:
    """Random numbers of examples that follow from the key and the examples' own numbers.

    Among the anchors of an image padded to another size every anchor keeps its random number, where those
    of ``jax.random.uniform`` follow from its place in the row of all.

    Args:
        key: scalar key.
        ids: uint32 [A].

    Returns:
        float32 [A], 0 … 1, multiples of 2^-24.
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    bits = _mixed(_mixed(jnp.asarray(ids) ^ first) ^ second)
    return (bits >> 8).astype(jnp.float32) * 2.0**-24


def _mixed(x: Any) -> Any:
    """A permutation of the numbers of 32 bits that makes neighbours unlike (``lowbias32``, C. Wellons)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
