"""What RepPointsV2 learns beside boxes (Chen et al. 2020, sec. 3): corners and maps of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jdet.ops.matching.best_objects import best_objects
from jdet.ops.matching.points import PointGrid, claim, nearest
from jdet.ops.vma import match_varying

HEAT_IOU = 0.7
"""Overlap that a box keeps if both corners move by the radius of the heat around them."""


class CornerTargets(NamedTuple):
    """Targets of one corner of all objects of an image.

    Attributes:
        heat: float32 [A], 1 at the peaks.
        peaks: bool [A], the points nearest to a corner on each level.
        offsets: float32 [A, 2], from peaks to their corners, x y in strides; 0 elsewhere.
    """

    heat: jax.Array
    peaks: jax.Array
    offsets: jax.Array


def corner_targets(
    corners: jax.Array,
    radius: jax.Array,
    valid: jax.Array,
    grids: Sequence[PointGrid],
    content: jax.Array,
) -> CornerTargets:
    """Heat maps and offsets of one corner, on every level, whatever the size of the objects.

    The point nearest to a corner is a peak. Others within a radius have exp(-d² / 2σ²) at a distance d,
    with σ a sixth of the diameter, 2r + 1 pixels. Where several corners are near, the largest counts; the
    offset of a peak that several corners share is that of the nearest.

    Args:
        corners: float32 [N, 2], x y, pixels.
        radius: float32 [N], pixels, of ``heat_radius``.
        valid: bool [N], which rows are objects.
        grids: one per level.
        content: [2], height and width of the image's content; only points on it are peaks.
    """
    total = sum(grid.rows * grid.columns for grid in grids)
    index, distance = nearest(corners, jnp.ones(2), grids, content)
    there = jnp.broadcast_to(valid[:, None], index.shape)
    owner = claim(index.reshape(-1), distance.reshape(-1), there.reshape(-1), total)
    peaks = owner >= 0
    points, strides = _points(grids)
    from_point = (corners[jnp.maximum(owner, 0) // len(grids)] - points) / strides[:, None]

    def heat(rows):
        x, y, reach = (rows[:, i, None] for i in range(3))
        square = (points[:, 0] - x) ** 2 + (points[:, 1] - y) ** 2
        sigma = (2 * reach + 1) / 6
        return jnp.where(square < reach**2, jnp.exp(-square / (2 * sigma**2)), 0.0)

    packed = jnp.concatenate([corners, radius[:, None]], axis=1)
    around, _, _ = best_objects(packed, valid, heat, 0.0)
    return CornerTargets(
        heat=jnp.where(peaks, 1.0, around),
        peaks=peaks,
        offsets=jnp.where(peaks[:, None], from_point, 0.0),
    )


def heat_radius(sizes: jax.Array, overlap: float = HEAT_IOU) -> jax.Array:
    """How far both corners of boxes can move so that the IoU with the box stays above ``overlap``.

    The least of the distances for corners that both move inwards, both outwards, or in one direction
    (CornerNet's quadratic equations, with the right divisors).

    Args:
        sizes: float32 [N, 2], width and height, pixels.
        overlap: IoU, above 0 and below 1.

    Returns:
        float32 [N], pixels.
    """
    total, area = jnp.sum(sizes, axis=1), jnp.prod(sizes, axis=1)

    def root(a, b, c, sign):
        return (b + sign * jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0))) / (2 * a)

    shifted = root(1, total, area * (1 - overlap) / (1 + overlap), -1)
    inwards = root(4, 2 * total, (1 - overlap) * area, -1)
    outwards = root(4 * overlap, -2 * overlap * total, (overlap - 1) * area, 1)
    return jnp.minimum(jnp.minimum(shifted, inwards), outwards)


def class_maps(
    boxes: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    grids: Sequence[PointGrid],
    num_classes: int,
) -> jax.Array:
    """Which classes each point shows, by boxes, with a weight that is less for large objects.

    A box fills the cells of the finest level that it touches. A point of another level takes the cell that
    it lies in there. (The authors stretch the finest map to the size of the others: the same where sizes
    halve exactly.) Where boxes of a class overlap, the smaller counts.

    Args:
        boxes: float32 [N, 4], x1 y1 x2 y2, pixels; those without area fill nothing.
        labels: int32 [N].
        valid: bool [N].
        grids: one per level, finest first.
        num_classes: K.

    Returns:
        float32 [K, A]: 0 where a class is not shown, otherwise one over the area of its object in cells of
        the finest level, so that all cells of an object there sum up to about one.
    """
    finest = grids[0]
    columns, rows = [], []
    for grid in grids:
        step = grid.stride / finest.stride
        row = jnp.minimum(jnp.arange(grid.rows) * step, finest.rows - 1)
        column = jnp.minimum(jnp.arange(grid.columns) * step, finest.columns - 1)
        rows.append(jnp.repeat(row, grid.columns))
        columns.append(jnp.tile(column, grid.rows))
    column, row = jnp.concatenate(columns), jnp.concatenate(rows)
    first, last = (jnp.floor(corner / finest.stride) for corner in (boxes[:, :2], boxes[:, 2:]))
    area = jnp.prod(boxes[:, 2:] - boxes[:, :2], axis=1) / finest.stride**2
    there = valid & (area > 0)
    weight = jnp.where(there, 1 / jnp.where(there, area, 1.0), 0.0)

    def fill(number, maps):
        across = (column >= first[number, 0]) & (column <= last[number, 0])
        down = (row >= first[number, 1]) & (row <= last[number, 1])
        return maps.at[labels[number]].max(jnp.where(across & down, weight[number], 0.0))

    start = match_varying(valid, jnp.zeros((num_classes, column.size)))
    return jax.lax.fori_loop(0, len(boxes), fill, start)


def _points(grids: Sequence[PointGrid]) -> tuple[jax.Array, jax.Array]:
    """Points float32 [A, 2], x y in pixels, and strides float32 [A] of all levels."""
    points, strides = [], []
    for grid in grids:
        y, x = jnp.meshgrid(jnp.arange(grid.rows), jnp.arange(grid.columns), indexing="ij")
        points.append(grid.stride * jnp.stack([x, y], axis=-1).reshape(-1, 2))
        strides.append(jnp.full(grid.rows * grid.columns, grid.stride))
    return jnp.concatenate(points), jnp.concatenate(strides)
