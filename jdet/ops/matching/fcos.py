"""The assignment of FCOS: a point takes the smallest object that it lies in."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jdet.ops.matching.best_objects import BELOW, best_objects


def assign(
    boxes: jax.Array,
    valid: jax.Array,
    points: jax.Array,
    reach: jax.Array,
    radius: jax.Array | None,
) -> jax.Array:
    """Assigns to every point the smallest object it lies in (Tian et al. 2019, sec. 3.1, 3.2).

    A point's distances to the four sides of the object must all be above 0, and the longest of them must
    lie within the range of the point's level.

    A small object inside a large one, and four points on one line; the first three belong to a level for
    distances up to 30 pixels, the last to the next one:

    >>> boxes = jnp.array([[0.0, 0.0, 60.0, 60.0], [20.0, 20.0, 40.0, 40.0]])
    >>> points = jnp.array([[30.0, 30.0], [5.0, 30.0], [70.0, 30.0], [5.0, 30.0]])
    >>> reach = jnp.array([[0.0, 30.0], [0.0, 30.0], [0.0, 30.0], [30.0, 1000.0]])
    >>> assign(boxes, jnp.array([True, True]), points, reach, None).tolist()
    [1, -1, -1, 0]

    The first point lies in both objects and takes the smaller one. The second lies in object 0 only, but
    55 pixels from its right side: that is for the next level, where the same point, the fourth, takes it.
    The third lies in no object. With centre sampling the fourth point is too far from the centre as well:

    >>> assign(boxes, jnp.array([True, True]), points, reach, jnp.full(4, 12.0)).tolist()
    [1, -1, -1, -1]

    Args:
        boxes: float32 [N, 4], x1 y1 x2 y2, pixels.
        valid: bool [N], which rows are objects.
        points: float32 [A, 2], x y.
        reach: float32 [A, 2], limits of the longest side distance of each point, both included.
        radius: float32 [A], centre sampling: a point must be nearer than this to the object's centre
            along both axes (Tian et al. 2020, sec. 3.1); None: all of the object counts.

    Returns:
        int32 [A]: index of the object (the first of equal areas), or ``BELOW``.
    """
    x, y = points[:, 0], points[:, 1]

    def minus_area(rows):
        x1, y1, x2, y2 = (rows[:, i, None] for i in range(4))
        sides = (x - x1, y - y1, x2 - x, y2 - y)
        longest = functools.reduce(jnp.maximum, sides)
        fits = functools.reduce(jnp.minimum, sides) > 0
        fits = fits & (longest >= reach[:, 0]) & (longest <= reach[:, 1])
        if radius is not None:
            away = jnp.maximum(jnp.abs(2 * x - x1 - x2), jnp.abs(2 * y - y1 - y2))
            fits = fits & (away < 2 * radius)
        return jnp.where(fits, -(x2 - x1) * (y2 - y1), -jnp.inf)

    best, index, _ = best_objects(boxes, valid, minus_area, -jnp.inf)
    return jnp.where(best > -jnp.inf, index, BELOW)
