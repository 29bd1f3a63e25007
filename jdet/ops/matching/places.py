"""What assignments look at that depend on predictions: classes and boxes, and where they are predicted."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jdet.ops.boxes import paired_iou

MARGIN = 0.01
"""Distance in pixels by which a centre must lie within an object."""


class Places(NamedTuple):
    """The anchors or points of an image with their predictions.

    Attributes:
        logits: float32 [A, K], of the classes.
        boxes: float32 [A, 4], predicted, x1 y1 x2 y2, pixels.
        centres: float32 [A, 2], x y, pixels.
        strides: float32 [A], pixels between the places of a level.
        usable: bool [A], which of them can be positive.
    """

    logits: jax.Array
    boxes: jax.Array
    centres: jax.Array
    strides: jax.Array
    usable: jax.Array

    def overlap(self, box: jax.Array) -> jax.Array:
        """IoU of all predicted boxes with one box [4], float32 [A]."""
        return self.finite(paired_iou(box, self.boxes))

    @staticmethod
    def finite(overlap: jax.Array) -> jax.Array:
        """Overlaps, 0 where a predicted box is none."""
        return jnp.where(jnp.isfinite(overlap), overlap, 0.0)


def inside(centres: jax.Array, boxes: jax.Array) -> jax.Array:
    """Which centres [..., 2] lie in boxes [..., 4] by more than ``MARGIN``; bool [...]."""
    low, high = centres - boxes[..., :2], boxes[..., 2:] - centres
    return jnp.min(jnp.minimum(low, high), axis=-1) > MARGIN
