"""Adaptive training sample selection (ATSS): a threshold per object, from its candidates' overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jdet.ops.boxes import cxcywh_to_xyxy, paired_iou
from jdet.ops.matching.best_objects import BELOW, most_overlapped
from jdet.ops.matching.places import MARGIN


class Grid(NamedTuple):
    """The anchors of a level: one square per cell of a grid, flattened row by row.

    Attributes:
        rows: float32 [h], centres, pixels.
        columns: float32 [w].
        side: of the squares, pixels.
    """

    rows: jax.Array
    columns: jax.Array
    side: float


def assign(
    boxes: jax.Array,
    valid: jax.Array,
    grids: list[Grid],
    content: jax.Array,
    count: int = 9,
) -> jax.Array:
    """The assignment of ATSS (Zhang et al. 2020, Algorithm 1).

    On each level the ``count`` anchors nearest to an object's centre are its candidates. A candidate is
    positive if its overlap with the object reaches the mean plus the standard deviation of the overlaps
    of all candidates of the object, and if its centre lies within the object. An anchor that is positive
    for several objects is assigned to the one it overlaps most.

    One object on a level with six anchors, squares with sides of 16 pixels centred at y = 8 and
    x = 8, 16, …, 48. The object is the anchor at x = 24, a little shorter:

    >>> grid = Grid(jnp.array([8.0]), 8.0 * jnp.arange(1, 7), 16.0)
    >>> boxes, valid = jnp.array([[16.0, 2.0, 32.0, 14.0]]), jnp.array([True])
    >>> content = jnp.array([16, 56])

    With ``count=3`` the anchors at x = 16, 24 and 32 are its candidates, with IoU of 0.273, 0.75 and
    0.273. Their mean is 0.432 and the standard deviation 0.275, so that only the middle one reaches the
    sum, 0.707:

    >>> assign(boxes, valid, [grid], content, count=3).tolist()
    [-1, -1, 0, -1, -1, -1]

    The nearest cells of a grid lie in its nearest rows and columns: an object is compared with no more than
    ``count²`` cells of a level, whatever the size of the map, and no array of N · A numbers exists.

    Args:
        boxes: float32 [N, 4], x1 y1 x2 y2, pixels.
        valid: bool [N], which rows are objects.
        grids: one per level, finest first.
        content: [2], height and width of the image's content; anchors centred outside are never candidates.
        count: candidates per object and level.

    Returns:
        int32 [A]: index of the object, or ``BELOW``; the levels are concatenated.
    """
    anchors = sum(grid.rows.size * grid.columns.size for grid in grids)
    if not len(boxes) or not anchors:
        return jnp.full(anchors, BELOW, jnp.int32)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    found, first = [], 0
    for grid in grids:
        index, anchor, near = _nearest(grid, centre, content, count)
        found.append((first + index, anchor, near))
        first += grid.rows.size * grid.columns.size
    index, anchor, near = (jnp.concatenate(parts, axis=1) for parts in zip(*found))  # [N, n]

    corners = cxcywh_to_xyxy(anchor)
    return _by_statistics(boxes, valid, index, corners, anchor[..., :2], near, first)


def assign_boxes(
    boxes: jax.Array,
    valid: jax.Array,
    candidates: Sequence[jax.Array],
    within: Sequence[jax.Array],
    count: int = 9,
) -> jax.Array:
    """As ``assign``, for boxes that lie anywhere, such as those that a network predicts.

    Args:
        boxes: float32 [N, 4], x1 y1 x2 y2, pixels.
        valid: bool [N], which rows are objects.
        candidates: float32 [A, 4] of every level, x1 y1 x2 y2, pixels. No gradient flows to them.
        within: bool [A] of every level, which of them can be candidates; those with a coordinate that is
            not finite cannot.
        count: candidates per object and level; all, where a level has fewer.

    Returns:
        int32 [A]: index of the object, or ``BELOW``; the levels are concatenated.
    """
    total = sum(map(len, candidates))
    if not len(boxes) or not total:
        return jnp.full(total, BELOW, jnp.int32)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    found, first = [], 0
    for level, usable in zip(candidates, within, strict=True):
        level = jax.lax.stop_gradient(level)
        middle = (level[:, :2] + level[:, 2:]) / 2
        x, y = (middle[:, i] - centre[:, i, None] for i in range(2))
        distance = jnp.where(usable & jnp.isfinite(x) & jnp.isfinite(y), x**2 + y**2, jnp.inf)
        minus, chosen = jax.lax.top_k(-distance, min(count, len(level)))
        near = minus > -jnp.inf
        parts = (jnp.where(near[..., None], x[chosen], 0.0) for x in (level, middle))
        found.append((first + chosen, *parts, near))
        first += len(level)
    index, anchor, middle, near = (jnp.concatenate(parts, axis=1) for parts in zip(*found))
    return _by_statistics(boxes, valid, index, anchor, middle, near, total)


def _by_statistics(boxes, valid, index, anchor, middle, near, total):
    """The rule itself, for the candidates of every object.

    Args:
        boxes: float32 [N, 4].
        valid: bool [N].
        index: int32 [N, n], places of candidates among all anchors.
        anchor: float32 [N, n, 4], their x1 y1 x2 y2.
        middle: float32 [N, n, 2], their centres.
        near: bool [N, n], which of them exist.
        total: number of anchors, A.

    Returns:
        int32 [A].
    """
    overlap = jnp.where(near, paired_iou(boxes[:, None], anchor), 0.0)
    # Compared with its own maximum below: an overlap computed twice may differ in its last bit.
    overlap = jax.lax.optimization_barrier(overlap)
    number = jnp.maximum(jnp.sum(near, axis=1, keepdims=True), 1)
    mean = jnp.sum(overlap, axis=1, keepdims=True) / number
    square = jnp.sum(jnp.where(near, (overlap - mean) ** 2, 0.0), axis=1, keepdims=True)
    threshold = mean + jnp.sqrt(square / jnp.maximum(number - 1, 1))
    x, y = middle[..., 0], middle[..., 1]
    x1, y1, x2, y2 = (boxes[:, i, None] for i in range(4))
    depth = jnp.minimum(jnp.minimum(x - x1, x2 - x), jnp.minimum(y - y1, y2 - y))
    positive = near & valid[:, None] & (overlap >= threshold) & (depth > MARGIN)
    return most_overlapped(index, positive, overlap, total)


def _nearest(
    grid: Grid, centre: jax.Array, content: jax.Array, count: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The cells of one level nearest to the centres [N, 2]; of equal distances the lower index comes first.

    Returns:
        Indices int32 [N, n], anchors float32 [N, n, 4] (cx cy w h) and which of them exist, bool [N, n].
    """

    def axis(positions, at, limit):
        away = jnp.where(positions < limit, jnp.abs(positions - at[:, None]), jnp.inf)  # [N, cells]
        # A cell further away along this axis has `count` nearer cells in its own row or column.
        _, chosen = jax.lax.top_k(-away, min(count, positions.size))
        chosen = jnp.sort(chosen, axis=1)
        return chosen, jnp.take_along_axis(away, chosen, axis=1)

    row, down = axis(grid.rows, centre[:, 1], content[0])
    column, across = axis(grid.columns, centre[:, 0], content[1])
    distance = (down[:, :, None] ** 2 + across[:, None] ** 2).reshape(len(centre), -1)
    width = column.shape[1]
    minus, chosen = jax.lax.top_k(-distance, min(count, distance.shape[1]))
    row = jnp.take_along_axis(row, chosen // width, axis=1)
    column = jnp.take_along_axis(column, chosen % width, axis=1)
    side = jnp.full(row.shape, grid.side)
    anchor = jnp.stack([grid.columns[column], grid.rows[row], side, side], axis=-1)
    return row * grid.columns.size + column, anchor, minus > -jnp.inf
