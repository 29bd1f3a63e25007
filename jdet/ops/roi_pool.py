"""RoIPool on a feature pyramid, with the gradient to the largest cells alone, in static shapes."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jdet.ops.roi_tiles import match_levels, plan, roi_levels, tile, usable, window, window_shape
from jdet.ops.vma import match_varying

_NONE = 2**31 - 1  # above the index of any cell


def roi_pool(
    levels: Sequence[jax.Array],
    rois: jax.Array,
    *,
    strides: Sequence[int],
    output: int | tuple[int, int],
    finest_scale: float = 56.0,
    valid: jax.Array | None = None,
) -> jax.Array:
    """The largest cell of each bin of each RoI, from the level of its size (Girshick 2015, Fast R-CNN).

    Corners are rounded to cells, halves away from zero; a RoI is at least one cell long. Bins are widened
    to whole cells, so that they overlap, and clipped to the map; one without cells gives 0 (torchvision's
    ``roi_pool``; where its float32 product of a bin's length and number rounds up, it takes one cell more).
    The gradient goes to the largest cell of a bin, of equal ones to the first in rows.

    The largest cells are sought tile by tile (``jdet.ops.roi_tiles``), one after the other on every
    platform, so that this is some sixty times slower than RoIAlign; what follows is a plain gather.

    Args:
        levels: float32 or bfloat16 [B, h, w, C] each, finest first.
        rois: float32 [B, R, 4], x1 y1 x2 y2 in pixels of the network input. No gradient flows to them.
        strides: pixels per cell of each level.
        output: bins along each axis, or height and width.
        finest_scale: as in ``roi_levels``.
        valid: bool [B, R]; other RoIs cost little, give zeros and no gradient. None: all are.

    Returns:
        [B, R, output, output, C] in the dtype of the levels. RoIs with a coordinate that is not finite
        give zeros.

    Raises:
        ValueError: another number of strides than of levels, or levels that do not fit each other.
    """
    rois = jax.lax.stop_gradient(jnp.asarray(rois, jnp.float32))
    levels = match_levels(levels, rois, strides)
    output = (output, output) if isinstance(output, int) else output
    flat, wanted = rois.reshape(-1, 4), usable(rois, valid)
    of_level = roi_levels(flat, len(levels), finest_scale)
    channels = levels[0].shape[-1]
    cells = jnp.full((len(flat), *output, channels), -1, jnp.int32)
    cells, before = match_varying(levels[0], cells), 0
    for number, (level, stride) in enumerate(zip(levels, strides)):
        found = _largest(
            jax.lax.stop_gradient(level), flat, wanted & (of_level == number), stride, output
        )
        cells = jnp.where(found >= 0, found + before, cells)
        before += level.size // channels
    pyramid = jnp.concatenate([level.reshape(-1, channels) for level in levels])
    picked = jnp.take_along_axis(pyramid, jnp.maximum(cells, 0).reshape(-1, channels), axis=0)
    picked = jnp.where(cells >= 0, picked.reshape(cells.shape), 0)
    return picked.reshape(*rois.shape[:2], *output, channels)


def _largest(level, rois, wanted, stride, output):
    """Number of each bin's largest cell among all of the level, int32 [M, O, O, C]; -1: no cell."""
    _, height, width, channels = level.shape
    sides = window_shape(level.shape)[1:3]
    bins = [
        _bins(rois[:, low], rois[:, low + 2], stride, count, size)
        for low, count, size in ((1, output[0], height), (0, output[1], width))
    ]
    ranges = [
        (jnp.minimum(jnp.min(begin, -1), size - 1), jnp.clip(jnp.max(end, -1) - 1, 0, size - 1))
        for (begin, end), size in zip(bins, (height, width))
    ]
    tiles = plan(ranges, wanted, level.shape)

    def members(axis, place, begin, own):
        """Which cells of a window are in which bin, bool [O, side]."""
        cells = begin + jnp.arange(sides[axis])
        first, end = (x[place.roi][:, None] for x in bins[axis])
        return (cells >= jnp.maximum(first, own)) & (cells < end)

    def seek(index, carry):
        place = tile(tiles, index, level.shape)
        cells = window(level, place)
        rows = members(0, place, place.top, place.row)[:, :, None, None]
        columns = members(1, place, place.left, place.column)[None, :, :, None]
        numbers = place.image * height + place.top + jnp.arange(sides[0])
        # Rows first: the largest of each column and the first row that has it.
        largest = jnp.max(jnp.where(rows, cells, -jnp.inf), 1)
        where = (cells == largest[:, None]) & rows
        row = jnp.min(jnp.where(where, numbers[:, None, None], _NONE), 1)
        # Then columns, in the order of rows where several are equal.
        column = place.left + jnp.arange(sides[1])
        number = jnp.where(row < _NONE, row * width + column[:, None], _NONE)[:, None]
        value = jnp.max(jnp.where(columns, largest[:, None], -jnp.inf), 2)
        where = (largest[:, None] == value[:, :, None]) & columns
        number = jnp.min(jnp.where(where, number, _NONE), 2)
        best, first = (jax.lax.dynamic_index_in_dim(x, place.roi, 0, False) for x in carry)
        take = (value > best) | ((value == best) & (number < first))
        new = jnp.where(take, value, best), jnp.where(take, number, first)
        return tuple(
            jax.lax.dynamic_update_index_in_dim(x, part, place.roi, 0)
            for x, part in zip(carry, new)
        )

    shape = (len(rois), *output, channels)
    start = jnp.full(shape, -jnp.inf), jnp.full(shape, _NONE, jnp.int32)
    start = tuple(match_varying(level, x) for x in start)
    _, first = jax.lax.fori_loop(0, tiles.upto[-1], seek, start)
    return jnp.where(first < _NONE, first, -1)


def _bins(low, high, stride, count, size):
    """First cell and end of every bin, int32 [M, O] each, within 0 … size."""
    low, high = _round(low / stride), _round(high / stride)
    length = jnp.maximum(high - low + 1, 1)[:, None]
    # In whole numbers: a float length times 1 / count is off by one cell here and there.
    begin = jnp.arange(count) * length // count
    end = -(-jnp.arange(1, count + 1) * length // count)
    return tuple(jnp.clip(x + low[:, None], 0, size) for x in (begin, end))


def _round(x):
    """To the nearest whole number, halves away from zero, as C does; within what int32 can hold."""
    rounded = jnp.sign(x) * jnp.floor(jnp.abs(x) + 0.5)
    return jnp.clip(rounded, -(2**24), 2**24).astype(jnp.int32)
