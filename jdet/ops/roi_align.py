"""RoIAlign on a feature pyramid, forward and backward in static shapes.

Bilinear interpolation on a grid and the mean over the points of a bin are separable: the bins of a RoI
are ``Y · cells · Xᵀ`` with two small matrices of weights, and the gradient is ``Yᵀ · bins · X``. Both run
as two matrix products per tile of 16 × 16 cells (``jdet.ops.roi_tiles``), so that their cost hardly depends
on the number of points.

Why not otherwise: autodiff of a gather of the 16 cells of each bin ends in a scatter-add, which XLA
runs serially on CPUs, row by row; products with the whole map would cost as much as a ResNet-50. On
CPUs the tiles are taken one after the other and read and written in place. Accelerators take 256 tiles
at once, since a loop of small products would leave them idle; gathers and scatter-adds are then of
windows, of which there are a hundred times fewer than of cells.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdet.ops.roi_tiles import (
    Tile,
    Tiles,
    match_levels,
    plan,
    roi_levels,
    tile,
    usable,
    window,
    window_shape,
)
from jdet.ops.vma import match_varying

EXACT = jax.lax.Precision.HIGHEST
"""Accelerators multiply float32 in lower precision unless told otherwise; these products are small."""

AT_ONCE = 256
"""Tiles that an accelerator takes in one step of the loop: 64 MiB of float32 windows at 256 channels."""


class Axis(NamedTuple):
    """The bins of RoIs along one axis, in cells.

    Attributes:
        start: float32 [M], where the first bin begins; 0 is the centre of the first cell.
        bin: float32 [M], length of a bin.
        points: sampling points per bin, an int; or float32 [M], one number per RoI.
    """

    start: Any
    bin: Any
    points: Any


class Settings(NamedTuple):
    """What is static: see ``roi_align``."""

    strides: tuple[int, ...]
    output: tuple[int, int]
    sampling: int
    aligned: bool
    finest_scale: float


def roi_align(
    levels: Sequence[jax.Array],
    rois: jax.Array,
    *,
    strides: Sequence[int],
    output: int | tuple[int, int],
    sampling: int = 2,
    aligned: bool = True,
    finest_scale: float = 56.0,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Bilinear samples of each RoI from the level of its size (He et al. 2017, Mask R-CNN, sec. 3).

    A bin is the mean of its sampling points. A point more than one cell outside the map counts as 0, others
    are moved to the nearest cell centre of the map, as in MMDetection and torchvision.

    Args:
        levels: float32 or bfloat16 [B, h, w, C] each, finest first.
        rois: float32 [B, R, 4], x1 y1 x2 y2 in pixels of the network input. No gradient flows to them.
        strides: pixels per cell of each level.
        output: bins along each axis, or height and width.
        sampling: points per bin along each axis; 0: as many as there are cells in a bin, rounded up
            (MMDetection's default), which takes longer.
        aligned: cell i is centred at (i + 0.5) · stride. False: at i · stride, and a RoI is at least one
            cell long, as in torchvision's detectors and the first version of the operation.
        finest_scale: as in ``roi_levels``.
        valid: bool [B, R]; other RoIs cost nothing, give zeros and no gradient. None: all are.

    Returns:
        [B, R, output, output, C] in the dtype of the levels; sums are float32. RoIs with a coordinate that
        is not finite give zeros.

    Raises:
        ValueError: another number of strides than of levels, or levels that do not fit each other.
    """
    rois = jax.lax.stop_gradient(jnp.asarray(rois, jnp.float32))
    levels = match_levels(levels, rois, strides)
    output = (output, output) if isinstance(output, int) else output
    if not rois.size:
        shape = (*rois.shape[:2], *output, levels[0].shape[-1])
        return match_varying(levels[0], jnp.zeros(shape, levels[0].dtype))
    settings = Settings(tuple(strides), output, sampling, aligned, finest_scale)
    found = _align(settings, levels, rois.reshape(-1, 4), usable(rois, valid))
    return found.reshape(*rois.shape[:2], *output, -1)


def axis_of(
    low: jax.Array, high: jax.Array, stride: float, bins: int, sampling: int, aligned: bool
) -> Axis:
    """The bins between two coordinates in pixels [M], as ``roi_align`` has them."""
    offset = 0.5 if aligned else 0.0
    start, end = low / stride - offset, high / stride - offset
    length = end - start if aligned else jnp.maximum(end - start, 1.0)
    # A bound to the points keeps RoIs far larger than any map from taking forever.
    points = sampling or jnp.clip(jnp.ceil(length / bins), 0, 1024)
    return Axis(start=start, bin=length / bins, points=points)


def axis_weights(axis: Axis, bins: int, cells: jax.Array, size: int) -> jax.Array:
    """The weights of cells in the bins of one RoI.

    Args:
        axis: of scalars.
        bins: O.
        cells: [n], indices of cells.
        size: cells of the map along this axis.

    Returns:
        float32 [O, n].
    """
    first = axis.start + jnp.arange(bins) * axis.bin

    def at(number):
        # Bilinear interpolation between cell centres is a hat of radius 1 around each point.
        place = first + (number + 0.5) * axis.bin / axis.points
        hats = 1 - jnp.abs(jnp.clip(place, 0, size - 1)[:, None] - cells)
        inside = (place >= -1) & (place <= size)
        return jnp.where(inside[:, None], jnp.maximum(hats, 0), 0)

    if isinstance(axis.points, int):
        return functools.reduce(jnp.add, map(at, range(axis.points))) / axis.points
    start = match_varying(axis.start, jnp.zeros((bins, cells.size), jnp.float32))
    total = jax.lax.fori_loop(
        0, axis.points.astype(jnp.int32), lambda number, total: total + at(number), start
    )
    return total / jnp.maximum(axis.points, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _align(settings, levels, rois, wanted):
    return _forward(settings, levels, rois, wanted)[0]


def _forward(settings, levels, rois, wanted):
    found = jax.lax.platform_dependent(
        levels,
        rois,
        wanted,
        cpu=functools.partial(read, settings, 1),
        default=functools.partial(read, settings, AT_ONCE),
    )
    return found, (levels, rois, wanted)


def _backward(settings, saved, gradient):
    levels, rois, wanted = saved  # of the levels only shapes and dtypes are used
    by_level = jax.lax.platform_dependent(
        gradient,
        rois,
        wanted,
        cpu=functools.partial(spread, settings, 1, [level.shape for level in levels]),
        default=functools.partial(spread, settings, AT_ONCE, [level.shape for level in levels]),
    )
    return tuple(x.astype(level.dtype) for x, level in zip(by_level, levels)), None, None


_align.defvjp(_forward, _backward)


def read(
    settings: Settings,
    at_once: int,
    levels: Sequence[jax.Array],
    rois: jax.Array,
    wanted: jax.Array,
) -> jax.Array:
    """The bins of RoIs [M, 4], float32 or bfloat16 [M, O, O, C], ``at_once`` tiles per step of the loop."""
    found = jnp.zeros((len(rois), *settings.output, levels[0].shape[-1]), jnp.float32)
    found = match_varying(levels[0], found)
    for number, level in enumerate(levels):
        tiles, weights = _level(settings, number, level.shape, rois, wanted)

        def bins(index, level=level, tiles=tiles, weights=weights):
            place = tile(tiles, index, level.shape)
            rows, columns = weights(place)
            cells = window(level, place)
            part = jnp.dot(rows, cells.reshape(len(cells), -1), precision=EXACT)
            part = part.reshape(len(rows), *cells.shape[1:])
            return place.roi, _columns("ijx,ixc->ijc", columns, part)

        def one(index, found, bins=bins):
            roi, part = bins(index)
            corner = (roi, 0, 0, 0)
            before = jax.lax.dynamic_slice(found, corner, (1, *part.shape))
            return jax.lax.dynamic_update_slice(found, before + part[None], corner)

        def many(step, found, bins=bins, tiles=tiles):
            index = step * at_once + jnp.arange(at_once)
            roi, part = jax.vmap(bins)(index)
            roi = jnp.where(index < tiles.upto[-1], roi, len(rois))
            return found.at[roi].add(part, mode="drop")

        found = _loop(tiles, at_once, one, many, found)
    return found.astype(levels[0].dtype)


def spread(
    settings: Settings,
    at_once: int,
    shapes: Sequence[Sequence[int]],
    gradient: jax.Array,
    rois: jax.Array,
    wanted: jax.Array,
) -> list[jax.Array]:
    """The transpose of ``read``: gradients of levels of these shapes, float32 [B, h, w, C]."""
    gradient = gradient.astype(jnp.float32)
    by_level = []
    for number, shape in enumerate(shapes):
        tiles, weights = _level(settings, number, shape, rois, wanted)

        def cells(index, shape=shape, tiles=tiles, weights=weights):
            place = tile(tiles, index, shape)
            rows, columns = weights(place)
            bins = jax.lax.dynamic_index_in_dim(gradient, place.roi, 0, False)
            part = _columns("ijx,ijc->ixc", columns, bins).reshape(len(rows), -1)
            part = jnp.dot(rows.T, part, precision=EXACT)
            return place, part.reshape(window_shape(shape)[1:])

        def one(index, total, cells=cells):
            place, part = cells(index)
            corner = (place.image, place.top, place.left, 0)
            before = jax.lax.dynamic_slice(total, corner, (1, *part.shape))
            return jax.lax.dynamic_update_slice(total, before + part[None], corner)

        def many(step, total, cells=cells, tiles=tiles):
            index = step * at_once + jnp.arange(at_once)
            place, part = jax.vmap(cells)(index)
            image = jnp.where(index < tiles.upto[-1], place.image, len(total))
            corners = jnp.stack([image, place.top, place.left], -1)
            return jax.lax.scatter_add(
                total,
                corners,
                part,
                jax.lax.ScatterDimensionNumbers(
                    update_window_dims=(1, 2, 3),
                    inserted_window_dims=(0,),
                    scatter_dims_to_operand_dims=(0, 1, 2),
                ),
                mode="drop",
            )

        total = match_varying(gradient, jnp.zeros(shape, jnp.float32))
        by_level.append(_loop(tiles, at_once, one, many, total))
    return by_level


def _loop(tiles, at_once, one, many, carry):
    """All tiles of a level, one at a time or several."""
    count = tiles.upto[-1]
    if at_once == 1:
        return jax.lax.fori_loop(0, count, one, carry)
    return jax.lax.fori_loop(0, (count + at_once - 1) // at_once, many, carry)


def _level(settings, number, shape, rois, wanted):
    """The tiles of a level, and a function from a tile to its weights of rows and of columns."""
    _, height, width, _ = shape
    of_level = roi_levels(rois, len(settings.strides), settings.finest_scale) == number
    axes, ranges = [], []
    for side, size, low in ((0, height, 1), (1, width, 0)):
        axis = axis_of(
            rois[:, low],
            rois[:, low + 2],
            settings.strides[number],
            settings.output[side],
            settings.sampling,
            settings.aligned,
        )
        axes.append(axis)
        ends = jnp.stack([axis.start, axis.start + axis.bin * settings.output[side]])
        ends = jnp.clip(ends, 0, size - 1)
        first = jnp.floor(jnp.min(ends, 0)).astype(jnp.int32)
        last = jnp.ceil(jnp.max(ends, 0)).astype(jnp.int32)
        ranges.append((first, last))
    tiles: Tiles = plan(ranges, wanted & of_level, shape)
    sides = window_shape(shape)[1:3]

    def weights(place: Tile):
        found = []
        corners = ((place.top, place.row), (place.left, place.column))
        for axis, bins, size, side, (begin, own) in zip(
            axes, settings.output, (height, width), sides, corners
        ):
            cells = begin + jnp.arange(side)
            of_roi = axis._replace(start=axis.start[place.roi], bin=axis.bin[place.roi])
            if not settings.sampling:
                of_roi = of_roi._replace(points=axis.points[place.roi])
            found.append(jnp.where(cells >= own, axis_weights(of_roi, bins, cells, size), 0))
        return found

    return tiles, weights


def _columns(formula, columns, x):
    """The product along columns. As a batch over the rows of ``x`` it needs no transpose of ``x``."""
    columns = jnp.broadcast_to(columns, (len(x), *columns.shape))
    return jnp.einsum(formula, columns, x, precision=EXACT)
