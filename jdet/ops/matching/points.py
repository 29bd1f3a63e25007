"""The assignment of RepPoints: the point nearest to an object's centre, on the level of its size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jdet.ops.matching.best_objects import BELOW


class PointGrid(NamedTuple):
    """The points of a level: the corners of its cells, flattened row by row.

    Attributes:
        rows: of the map.
        columns: of the map.
        stride: distance between neighbours, pixels; the first point is at 0 0.
    """

    rows: int
    columns: int
    stride: float


def assign(
    boxes: jax.Array, valid: jax.Array, grids: Sequence[PointGrid], content: jax.Array
) -> jax.Array:
    """The first assignment of RepPoints (Yang et al. 2019, sec. 3.3).

    An object belongs to the level whose stride is a fourth of its size, rounded down to a power of two, or
    to the nearest one there is. There it takes the point nearest to its centre, measured in its own widths
    and heights. A point that several objects take is assigned to the nearest.

    A level of stride 8 with four points in a row, and one of stride 16 with two:

    >>> grids = [PointGrid(1, 4, 8.0), PointGrid(1, 2, 16.0)]
    >>> content, valid = jnp.array([8, 32]), jnp.ones(3, bool)

    Objects 0 and 1 have sides of 40 pixels, for which the stride is 8, and centres at x = 10 and 13. Point
    1 at x = 8 is nearest to object 0, point 2 at x = 16 to object 1. Object 2 is twice as large:

    >>> centres, sizes = jnp.array([[10.0, 0.0], [13.0, 0.0], [14.0, 0.0]]), jnp.array([40, 40, 80])
    >>> half = sizes[:, None] / 2
    >>> def run(centres):
    ...     corners = jnp.concatenate([centres - half, centres + half], axis=1)
    ...     return assign(corners, valid, grids, content).tolist()
    >>> run(centres)
    [-1, 0, 1, -1, -1, 2]

    Were object 1 at x = 11, both would take point 1, to which object 0 is nearer:

    >>> run(centres.at[1, 0].set(11.0))
    [-1, 0, -1, -1, -1, 2]

    Args:
        boxes: float32 [N, 4], x1 y1 x2 y2, pixels.
        valid: bool [N], which rows are objects, with an area above 0.
        grids: one per level, finest first.
        content: [2], height and width of the image's content; points outside are not assigned.

    Returns:
        int32 [A]: index of the object, or ``BELOW``; the levels are concatenated.
    """
    size = jnp.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    index, distance = nearest((boxes[:, :2] + boxes[:, 2:]) / 2, size, grids, content)
    # The mean of both logarithms, cut towards zero; the strides are powers of two.
    wanted = jnp.trunc(jnp.mean(jnp.log2(size / 4), axis=1))
    exponents = jnp.array([math.log2(grid.stride) for grid in grids])
    level = jnp.sum(exponents[1:] <= wanted[:, None], axis=1)[:, None]
    index, distance = (jnp.take_along_axis(x, level, axis=1)[:, 0] for x in (index, distance))
    return claim(index, distance, valid, sum(grid.rows * grid.columns for grid in grids))


def nearest(
    places: jax.Array, scale: jax.Array, grids: Sequence[PointGrid], content: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The nearest point of every level; of equal distances the lower index.

    Args:
        places: float32 [N, 2], x y, pixels.
        scale: float32 [N, 2], divisors of distances along x and y.
        grids: one per level, L.
        content: [2], height and width of the image's content; points lie on it.

    Returns:
        Indices int32 [N, L] among the points of all levels, and squared distances float32 [N, L], infinite
        where a level has no point on the content.
    """
    indices, distances, first = [], [], 0
    for rows, columns, stride in grids:
        # The nearest of a grid is nearest along both axes.
        last = jnp.minimum(jnp.ceil(content[::-1] / stride), jnp.array([columns, rows])) - 1
        cell = jnp.clip(jnp.ceil(places / stride - 0.5), 0, jnp.maximum(last, 0))
        away = jnp.sum(((cell * stride - places) / scale) ** 2, axis=1)
        there = jnp.all(last >= 0) & jnp.isfinite(away)
        cell = jnp.where(jnp.isfinite(cell), cell, 0).astype(jnp.int32)
        indices.append(first + cell[:, 1] * columns + cell[:, 0])
        distances.append(jnp.where(there, away, jnp.inf))
        first += rows * columns
    return jnp.stack(indices, axis=1), jnp.stack(distances, axis=1)


def claim(index: jax.Array, distance: jax.Array, valid: jax.Array, total: int) -> jax.Array:
    """Which of several candidates has each point: the nearest, of equals the first.

    Args:
        index: int32 [M], the point that a candidate takes.
        distance: float32 [M]; infinite: it takes none.
        valid: bool [M], which candidates there are.
        total: number of points, A.

    Returns:
        int32 [A], a candidate, or ``BELOW``.
    """
    count = len(index)
    if not total:
        return jnp.zeros(0, jnp.int32)
    target = jnp.where(valid & (distance < jnp.inf), index, total)
    least = jnp.full(total, jnp.inf).at[target].min(distance, mode="drop")
    wins = distance == least.at[target].get(mode="fill", fill_value=-1.0)
    numbers = jnp.arange(count, dtype=jnp.int32)
    owner = jnp.full(total, count, jnp.int32)
    owner = owner.at[jnp.where(wins, target, total)].min(numbers, mode="drop")
    return jnp.where(owner == count, BELOW, owner)
