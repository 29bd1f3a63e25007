"""Box geometry on ``x1 y1 x2 y2`` boxes, continuous pixels, float32; works under jit and vmap."""

from __future__ import annotations

import jax
import jax.numpy as jnp

EMPTY = 1e-12
"""Square pixels (or squared pixels of a diagonal) up to which a share of it is 0: dividing by less would
leave no finite gradient."""


def cxcywh_to_xyxy(boxes: jax.Array) -> jax.Array:
    """Centre and size ``cx cy w h`` to corners ``x1 y1 x2 y2``; [..., 4] to [..., 4]."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def xyxy_to_cxcywh(boxes: jax.Array) -> jax.Array:
    """Corners ``x1 y1 x2 y2`` to centre and size ``cx cy w h``; [..., 4] to [..., 4]."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def area(boxes: jax.Array) -> jax.Array:
    """Area in square pixels, [..., 4] to [...]; the area of inverted boxes is 0."""
    size = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return size[..., 0] * size[..., 1]


def clip(boxes: jax.Array, image_size: jax.Array) -> jax.Array:
    """Clips boxes [..., 4] to the image; ``image_size`` [2] or [..., 2] is height, width."""
    image_size = jnp.asarray(image_size, boxes.dtype)
    limit = jnp.concatenate([image_size[..., ::-1], image_size[..., ::-1]], axis=-1)
    return jnp.clip(boxes, 0, limit)


def enlarged(boxes: jax.Array, factor: float) -> jax.Array:
    """Boxes [..., 4], x1 y1 x2 y2, with the same centres and ``factor`` times their sides."""
    beyond = (factor - 1) / 2 * (boxes[..., 2:] - boxes[..., :2])
    return jnp.concatenate([boxes[..., :2] - beyond, boxes[..., 2:] + beyond], axis=-1)


def pairwise_iou(a: jax.Array, b: jax.Array, kind: str = "iou") -> jax.Array:
    """Overlap of every box of ``a`` [..., N, 4] with every box of ``b`` [..., M, 4].

    Args:
        a: float32 boxes.
        b: float32 boxes, same leading axes.
        kind: "iou" (intersection over union, 0 … 1), "giou" (Rezatofighi et al. 2019, -1 … 1),
            "diou" or "ciou" (Zheng et al. 2020).

    Returns:
        float32 [..., N, M]. Pairs of empty boxes have overlap 0, never NaN.
    """
    return paired_iou(a[..., :, None, :], b[..., None, :, :], kind)


def pairwise_iof(a: jax.Array, b: jax.Array) -> jax.Array:
    """Share of every box of ``b`` [..., M, 4] that lies in every box of ``a`` [..., N, 4].

    Returns:
        float32 [..., N, M], intersection over the area of the box of ``b``; 0 where that has none.
    """
    a, b = a[..., :, None, :], b[..., None, :, :]
    low, high = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    return _share(
        area(jnp.concatenate([low, high], axis=-1)), jnp.broadcast_to(area(b), low.shape[:-1])
    )


def paired_iou(a: jax.Array, b: jax.Array, kind: str = "iou") -> jax.Array:
    """Overlap of each box of ``a`` [..., 4] with the box of ``b`` [..., 4] at the same place.

    Args:
        a: float32 boxes.
        b: float32 boxes; leading axes broadcast.
        kind: as in ``pairwise_iou``.

    Returns:
        float32 [...]. Pairs of empty boxes have overlap 0. Gradients are finite for all boxes whose sides
        and distances are below 1e15 pixels.
    """
    a, b = (jnp.asarray(x) for x in (a, b))
    a, b = (x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (a, b))
    # One array per coordinate: a trailing axis of 4 or 2 would defeat vectorisation on CPUs.
    ax1, ay1, ax2, ay2 = (a[..., i] for i in range(4))
    bx1, by1, bx2, by2 = (b[..., i] for i in range(4))
    width = jnp.maximum(jnp.minimum(ax2, bx2) - jnp.maximum(ax1, bx1), 0)
    height = jnp.maximum(jnp.minimum(ay2, by2) - jnp.maximum(ay1, by1), 0)
    intersection = width * height
    area_a = jnp.maximum(ax2 - ax1, 0) * jnp.maximum(ay2 - ay1, 0)
    area_b = jnp.maximum(bx2 - bx1, 0) * jnp.maximum(by2 - by1, 0)
    union = area_a + area_b - intersection
    iou = _share(intersection, union)
    if kind == "iou":
        return iou
    hull_width = jnp.maximum(ax2, bx2) - jnp.minimum(ax1, bx1)
    hull_height = jnp.maximum(ay2, by2) - jnp.minimum(ay1, by1)
    if kind == "giou":
        hull = hull_width * hull_height
        return iou - _share(hull - union, hull)
    if kind not in ("diou", "ciou"):
        raise ValueError(f"kind={kind!r}; known are 'iou', 'giou', 'diou', 'ciou'")
    distance = ((ax1 + ax2 - bx1 - bx2) ** 2 + (ay1 + ay2 - by1 - by2) ** 2) / 4
    diou = iou - _share(distance, hull_width**2 + hull_height**2)
    if kind == "diou":
        return diou
    angle_a = _angle(ax2 - ax1, ay2 - ay1)
    angle_b = _angle(bx2 - bx1, by2 - by1)
    v = (4 / jnp.pi**2) * (angle_b - angle_a) ** 2
    # The trade-off is a constant of the gradient (Zheng et al. 2020, below eq. 12).
    trade_off = jax.lax.stop_gradient(_share(v, 1 - iou + v))
    return diou - v * trade_off


def _share(part: jax.Array, whole: jax.Array) -> jax.Array:
    """``part / whole``, 0 with a gradient of 0 where ``whole`` is no more than ``EMPTY``."""
    there = whole > EMPTY
    return jnp.where(there, part / jnp.where(there, whole, 1.0), 0.0)


def _angle(width: jax.Array, height: jax.Array) -> jax.Array:
    """Angle of the diagonal of boxes; that of a flat box is a right one, that of an empty box 0."""
    return jnp.arctan2(width, jnp.maximum(height, 1e-6))
