"""Box coding: offsets of a box against a reference box (R-CNN, SSD) and back."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

SSD_VARIANCES = (0.1, 0.1, 0.2, 0.2)
"""Divisors of the offsets in SSD (Caffe SSD ``prior_variance``)."""

MAX_LOG_SCALE = math.log(1000 / 16)
"""Largest log scale that the R-CNN family decodes, so that ``exp`` of a large offset stays finite."""

LEAST_SIDE = 1e-6
"""Shortest side of a box or anchor that is coded, pixels."""


def encode(
    boxes: jax.Array, anchors: jax.Array, variances: tuple[float, ...] = SSD_VARIANCES
) -> jax.Array:
    """Offsets of ``boxes`` against ``anchors``.

    Args:
        boxes: [..., 4], x1 y1 x2 y2, float32 or whole numbers.
        anchors: [..., 4], cx cy w h, in the same unit (pixels). Sides of both are taken as at least 1e-6
            pixels, so that padding rows and anchors cut to nothing give finite (meaningless) offsets.
        variances: divisors of dx, dy, dw and dh.

    Returns:
        float32 [..., 4]: ``(bx-ax)/aw, (by-ay)/ah, ln(bw/aw), ln(bh/ah)``, each over its variance.
    """
    boxes, anchors = _floating(boxes), _floating(anchors)
    size, anchor_size = (
        jnp.maximum(x, LEAST_SIDE) for x in (boxes[..., 2:] - boxes[..., :2], anchors[..., 2:])
    )
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    shift = (centre - anchors[..., :2]) / anchor_size
    scale = jnp.log(size / anchor_size)
    return jnp.concatenate([shift, scale], axis=-1) / jnp.asarray(variances, boxes.dtype)


def decode(
    offsets: jax.Array,
    anchors: jax.Array,
    variances: tuple[float, ...] = SSD_VARIANCES,
    max_log_scale: float = MAX_LOG_SCALE,
    min_log_scale: float = -math.inf,
) -> jax.Array:
    """Inverse of ``encode``.

    Args:
        offsets: [..., 4], float32 or whole numbers.
        anchors: [..., 4], cx cy w h.
        variances: as in ``encode``.
        max_log_scale: upper limit of ``dw`` and ``dh`` before the exponential.
        min_log_scale: lower limit; MMDetection has ``-MAX_LOG_SCALE``, torchvision and Detectron2 none.

    Returns:
        float32 [..., 4], x1 y1 x2 y2, not clipped to the image.
    """
    offsets, anchors = _floating(offsets), _floating(anchors)
    offsets = offsets * jnp.asarray(variances, offsets.dtype)
    centre = anchors[..., :2] + offsets[..., :2] * anchors[..., 2:]
    log_scale = jnp.minimum(offsets[..., 2:], max_log_scale)
    if min_log_scale > -math.inf:
        log_scale = jnp.maximum(log_scale, min_log_scale)
    half = anchors[..., 2:] * jnp.exp(log_scale) / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def encode_distances(points: jax.Array, boxes: jax.Array) -> jax.Array:
    """Distances from points to the four sides of boxes (FCOS, Tian et al. 2019, eq. 1).

    Args:
        points: float32 [..., 2], x y.
        boxes: float32 [..., 4], x1 y1 x2 y2.

    Returns:
        float32 [..., 4], left top right bottom; negative where the point lies outside.
    """
    return jnp.concatenate([points - boxes[..., :2], boxes[..., 2:] - points], axis=-1)


def decode_distances(points: jax.Array, distances: jax.Array) -> jax.Array:
    """Inverse of ``encode_distances``: points [..., 2] and distances [..., 4] to boxes [..., 4]."""
    return jnp.concatenate([points - distances[..., :2], points + distances[..., 2:]], axis=-1)


def _floating(values: jax.Array) -> jax.Array:
    """float32 at least: in the type of whole-number boxes, variances below 1 would be 0."""
    values = jnp.asarray(values)
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
