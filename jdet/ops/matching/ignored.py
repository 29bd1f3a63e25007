"""Ignore regions: anchors that lie in an object which is not trained on are not background either."""

from __future__ import annotations

import jax

from jdet.ops.boxes import pairwise_iof
from jdet.ops.matching.best_objects import best_objects


def inside_ignored(
    corners: jax.Array, boxes: jax.Array, ignored: jax.Array, threshold: float
) -> jax.Array:
    """Which anchors lie in an ignored region and are left out (MMDetection's ``ignore_iof_thr``).

    A region on the left half of the image, and three anchors with all, half and none of their area in it:

    >>> import jax.numpy as jnp
    >>> region = jnp.array([[0.0, 0.0, 50.0, 100.0]])
    >>> corners = jnp.array([[10.0, 10, 20, 20], [45, 10, 55, 20], [60, 10, 70, 20]])
    >>> inside_ignored(corners, region, jnp.array([True]), 0.4).tolist()
    [True, True, False]
    >>> inside_ignored(corners, region, jnp.array([True]), 0.5).tolist()
    [True, False, False]

    Args:
        corners: float32 [A, 4], anchors, x1 y1 x2 y2.
        boxes: float32 [N, 4], x1 y1 x2 y2.
        ignored: bool [N], which of them are such regions.
        threshold: share of an anchor's area, intersection over foreground, above which it is left out.

    Returns:
        bool [A].
    """
    best, _, _ = best_objects(boxes, ignored, lambda rows: pairwise_iof(rows, corners), 0.0)
    return best > threshold
