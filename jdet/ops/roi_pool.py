"""RoIPool on a feature pyramid, with the gradient to the largest cells alone, in static shapes.

Step n of a loop compares the n-th cell of all bins of a RoI, a row of channels each, with the largest so
far. So the loop is as long as the longest bin has cells, and the work is that of reading the RoI once. CPUs
take the RoIs one after the other, so that what is compared stays in the cache; accelerators take 256 at
once, since steps this small would leave them idle.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdet.ops.roi_tiles import match_levels, roi_levels, usable
from jdet.ops.vma import match_varying

AT_ONCE = 256
"""RoIs that an accelerator takes in one loop: 24 MiB of values and indices at 7² bins of 256 channels."""


class Settings(NamedTuple):
    """What is static: see ``roi_pool``."""

    strides: tuple[int, ...]
    output: tuple[int, int]
    finest_scale: float


class Bins(NamedTuple):
    """The bins of the RoIs of one level.

    Attributes:
        image: int32 [M], index of each RoI's image.
        rows: first row and end of the bins, int32 [M, O] each, within the map.
        columns: the same of columns.
        order: int32 [M], RoIs of this level first.
        count: int32, number of those.
    """

    image: Any
    rows: Sequence[Any]
    columns: Sequence[Any]
    order: Any
    count: Any


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

    Args:
        levels: float32 or bfloat16 [B, h, w, C] each, finest first.
        rois: float32 [B, R, 4], x1 y1 x2 y2 in pixels of the network input. No gradient flows to them.
        strides: pixels per cell of each level.
        output: bins along each axis, or height and width.
        finest_scale: as in ``roi_levels``.
        valid: bool [B, R]; other RoIs cost nothing, give zeros and no gradient. None: all are.

    Returns:
        [B, R, output, output, C] in the dtype of the levels. RoIs with a coordinate that is not finite
        give zeros.

    Raises:
        ValueError: another number of strides than of levels, or levels that do not fit each other.
    """
    rois = jax.lax.stop_gradient(jnp.asarray(rois, jnp.float32))
    levels = match_levels(levels, rois, strides)
    output = (output, output) if isinstance(output, int) else output
    if not rois.size:
        shape = (*rois.shape[:2], *output, levels[0].shape[-1])
        return match_varying(levels[0], jnp.zeros(shape, levels[0].dtype))
    settings = Settings(tuple(strides), output, finest_scale)
    found = _pool(settings, levels, rois.reshape(-1, 4), usable(rois, valid))
    return found.reshape(*rois.shape[:2], *output, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _pool(settings, levels, rois, wanted):
    return _forward(settings, levels, rois, wanted)[0]


def _forward(settings, levels, rois, wanted):
    found, cells = jax.lax.platform_dependent(
        levels,
        rois,
        wanted,
        cpu=functools.partial(seek, settings, 1),
        default=functools.partial(seek, settings, AT_ONCE),
    )
    return found, (levels, rois, wanted, cells)


def _backward(settings, saved, gradient):
    levels, rois, wanted, cells = saved  # of the levels only shapes and dtypes are used
    shapes = [level.shape for level in levels]
    by_level = jax.lax.platform_dependent(
        gradient,
        cells,
        rois,
        wanted,
        cpu=functools.partial(spread, settings, 1, shapes),
        default=functools.partial(spread, settings, AT_ONCE, shapes),
    )
    return tuple(x.astype(level.dtype) for x, level in zip(by_level, levels)), None, None


_pool.defvjp(_forward, _backward)


def seek(
    settings: Settings,
    at_once: int,
    levels: Sequence[jax.Array],
    rois: jax.Array,
    wanted: jax.Array,
) -> Sequence[jax.Array]:
    """The largest cells of the bins of RoIs [M, 4], and where they are.

    Returns:
        Values [M, O, O, C] in the dtype of the levels, 0 where there is no cell; and indices of cells among
        all of the level, images and rows first, int32 [M, O, O, C]; -1 where there is none.
    """
    shape = (len(rois), *settings.output, levels[0].shape[-1])
    carry = jnp.zeros(shape, levels[0].dtype), jnp.full(shape, -1, jnp.int32)
    carry = tuple(match_varying(levels[0], x) for x in carry)
    for number, level in enumerate(levels):
        bins = _bins_of_level(settings, number, level.shape, rois, wanted)
        flat = level.reshape(-1, shape[-1])

        def largest(roi, bins=bins, flat=flat, level=level):
            top, bottom = (x[roi] for x in bins.rows)
            left, right = (x[roi] for x in bins.columns)
            high = jnp.max(bottom - top, axis=1, keepdims=True)
            wide = jnp.maximum(jnp.max(right - left, axis=1, keepdims=True), 1)

            def compare(step, seen):
                # Bins with fewer cells meet their last ones again, which are not larger than themselves.
                row = jnp.clip(top + step // wide, 0, bottom - 1)
                column = jnp.clip(left + step % wide, 0, right - 1)
                row = bins.image[roi, None] * level.shape[1] + row
                cell = row[:, :, None] * level.shape[2] + column[:, None]
                value, (best, first) = flat.at[cell].get(mode="clip"), seen
                take = (value > best) | (first < 0)
                return jnp.where(take, value, best), jnp.where(take, cell[..., None], first)

            part = (len(roi), *shape[1:])
            start = jnp.full(part, -jnp.inf, level.dtype), jnp.full(part, -1, jnp.int32)
            start = tuple(match_varying(level, x) for x in start)
            best, first = jax.lax.fori_loop(0, jnp.max(high * wide), compare, start)
            there = (top < bottom)[:, :, None] & (left < right)[:, None]
            there = there[..., None] & (first >= 0)
            return jnp.where(there, best, 0), jnp.where(there, first, -1)

        def take_rois(step, carry, bins=bins, largest=largest):
            roi, place = _some(bins, step, at_once)
            return tuple(x.at[place].set(y, mode="drop") for x, y in zip(carry, largest(roi)))

        carry = jax.lax.fori_loop(0, -(-bins.count // at_once), take_rois, carry)
    return carry


def spread(
    settings: Settings,
    at_once: int,
    shapes: Sequence[Sequence[int]],
    gradient: jax.Array,
    cells: jax.Array,
    rois: jax.Array,
    wanted: jax.Array,
) -> list[jax.Array]:
    """Gradients of levels of these shapes, float32 [B, h, w, C], from those of the values of ``seek``."""
    gradient = gradient.astype(jnp.float32)
    channel = jnp.arange(gradient.shape[-1])
    by_level = []
    for number, shape in enumerate(shapes):
        bins = _bins_of_level(settings, number, shape, rois, wanted)
        count = shape[0] * shape[1] * shape[2]

        def take_rois(step, total, bins=bins, count=count):
            roi, place = _some(bins, step, at_once)
            cell = cells[roi]
            real = (cell >= 0) & (place < len(rois))[:, None, None, None]
            cell = jnp.where(real, cell, count)
            return total.at[cell, channel].add(gradient[roi], mode="drop")

        total = match_varying(gradient, jnp.zeros((count, shape[-1]), jnp.float32))
        total = jax.lax.fori_loop(0, -(-bins.count // at_once), take_rois, total)
        by_level.append(total.reshape(shape))
    return by_level


def _some(bins, step, at_once):
    """RoIs of one step, int32 [at_once], and where their results belong: M for those that only fill up."""
    rank = step * at_once + jnp.arange(at_once)
    roi = bins.order[jnp.minimum(rank, bins.count - 1)]
    return roi, jnp.where(rank < bins.count, roi, len(bins.order))


def _bins_of_level(settings, number, shape, rois, wanted):
    """``Bins`` of the RoIs [M, 4] that a level of this shape has."""
    of_level = roi_levels(rois, len(settings.strides), settings.finest_scale) == number
    rows, columns = (
        _bins(rois[:, low], rois[:, low + 2], settings.strides[number], bins, size)
        for low, bins, size in zip((1, 0), settings.output, shape[1:3])
    )
    chosen = wanted & of_level
    return Bins(
        image=jnp.arange(len(rois), dtype=jnp.int32) // (len(rois) // shape[0]),
        rows=rows,
        columns=columns,
        order=jnp.argsort(~chosen, stable=True),
        count=jnp.sum(chosen, dtype=jnp.int32),
    )


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
