"""What a run does with the size of images, inside a program that takes images of any size.

A run resizes on the host, by OpenCV. Here are the same numbers in JAX: the coordinates are ratios of whole
numbers, so that single precision gives what OpenCV has from double, sides are those of
``jdet.export.double_sides``, and 8-bit images are interpolated in
its fixed-point arithmetic. Heights and widths are values of the program, not of the trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdet.data.transforms.fit_crop import FitCrop
from jdet.data.transforms.keep_ratio import KeepRatio
from jdet.data.transforms.resample import STRONG_SHRINK, Size
from jdet.data.transforms.resize import Resize
from jdet.data.transforms.warp import Warp
from jdet.export.double_sides import scaled
from jdet.types import ConfigError

BITS = 11
"""Of the fractions by which OpenCV interpolates 8-bit images."""

LEAST = 1e-3
"""Share of a source pixel below which OpenCV leaves it out of a mean."""

Sides = tuple[jax.Array, jax.Array]
"""Height and width, int32 scalars."""


Fill = Callable[[jax.Array], jax.Array]
"""Replaces invalid values of an image."""


def _as_they_are(values: jax.Array) -> jax.Array:
    return values


def check(resize: Resize) -> None:
    """Refuses a rule that is not one of jdet's own.

    Raises:
        ConfigError: names it.
    """
    if type(resize) not in (Warp, KeepRatio, FitCrop):
        raise ConfigError(
            f"config.resize.name: {type(resize).__name__} is a class of the user's, and an exported "
            "program knows the rules warp, keep_ratio and fit_crop; train with one of these to export"
        )


def shape_of(resize: Resize, height: jax.Array, width: jax.Array) -> jax.Array:
    """``Resize.shape_of`` of sizes that are known when the program runs, int32."""
    if not isinstance(resize, KeepRatio):
        return jnp.int32(0)
    high, wide = _kept(resize, height, width, max(*resize.short, resize.test_short))
    order = sorted(range(len(resize.shapes)), key=lambda i: math.prod(resize.shapes[i]))
    best, most = jnp.int32(order[0]), jnp.float32(-1)
    for index in order:  # of equal ones the smallest
        rows, columns = resize.shapes[index]
        fit = jnp.minimum(rows / high.astype(jnp.float32), columns / wide.astype(jnp.float32))
        fit = jnp.minimum(fit, 1.0)
        best, most = jnp.where(fit > most, index, best), jnp.maximum(fit, most)
    return best


def content(resize: Resize, height: jax.Array, width: jax.Array, shape: Size) -> Sides:
    """``Resize.content`` at the scale of testing."""
    if isinstance(resize, FitCrop):
        whole = jnp.stack((height, width))
        side = jnp.int32(resize.input_size)
        sides = scaled(whole, side, jnp.maximum(height, width), nearest=True)
        sides = jnp.full(2, side) if resize.square else sides
    elif isinstance(resize, KeepRatio):
        sides = _kept(resize, height, width, resize.test_short)
        by_height = (
            shape[0] * width <= shape[1] * height
        )  # which side of the shape is reached first
        numerator = jnp.where(by_height, shape[0], shape[1])
        divisor = jnp.where(by_height, height, width)
        inside = scaled(jnp.stack((height, width)), numerator, divisor, nearest=False)
        sides = jnp.where(jnp.any(sides > np.array(shape)), inside, sides)
    else:
        sides = jnp.asarray(shape, jnp.int32)
    high, wide = jnp.clip(sides, 1, np.array(shape))
    return high, wide


def _kept(resize: KeepRatio, height: jax.Array, width: jax.Array, short: int) -> jax.Array:
    """Sides int32 [2] that keep their proportions, of a short and at most a long side."""
    least, most = jnp.minimum(height, width), jnp.maximum(height, width)
    by_short = short * most <= resize.long * least
    numerator = jnp.where(by_short, short, resize.long)
    divisor = jnp.where(by_short, least, most)
    nearest = resize.rounding == "nearest"
    sides = scaled(jnp.stack((height, width)), numerator, divisor, nearest=nearest)
    return jnp.maximum(sides, 1)


def prepare(
    image: jax.Array, size: jax.Array, resize: Resize, shape: Size, fill: Fill = _as_they_are
) -> tuple[jax.Array, jax.Array]:
    """``Resize.prepare`` for images to which it gives one of its shapes.

    Args:
        image: [h, w, C] of uint8, uint16 or float32; h and w may be symbolic.
        size: int32 [2], height and width of the image in its upper left corner.
        resize: the rule.
        shape: of the network input.
        fill: replaces invalid values, before they are interpolated.

    Returns:
        [*shape, C] of the same type, and the content's height and width, int32 [2].
    """
    from_sides = size[0], size[1]
    sides = content(resize, *from_sides, shape)
    pairs = list(zip(from_sides, sides, strict=True))
    strong, both = jnp.bool_(False), jnp.bool_(True)
    for source, target in pairs:
        strong |= source > int(STRONG_SHRINK) * target
        both &= source >= target
    pixels = jax.lax.cond(
        strong & both,
        lambda: _mean(image, from_sides, sides, shape, fill),
        lambda: _linear(image, from_sides, sides, shape, fill, strong),
    )
    inside = (jnp.arange(shape[0]) < sides[0])[:, None] & (jnp.arange(shape[1]) < sides[1])
    return jnp.where(inside[..., None], pixels, 0).astype(image.dtype), jnp.stack(sides)


def _rows(image: jax.Array, index: jax.Array) -> jax.Array:
    """Rows [n, w, C] of an image."""
    return _taken(image, index, 0)


def _columns(rows: jax.Array, index: jax.Array, fill: Fill) -> jax.Array:
    """Columns [H, W, C] of rows, filled, int32 of 8-bit images and float32 of others."""
    found = fill(_taken(rows, index, 1))
    return found.astype(jnp.int32 if rows.dtype == jnp.uint8 else jnp.float32)


def _taken(image: jax.Array, index: jax.Array, axis: int) -> jax.Array:
    """What ``jnp.take`` gives of indices inside, which needs no value of a symbolic side."""
    others = tuple(i for i in range(3) if i != axis)
    numbers = jax.lax.GatherDimensionNumbers(
        offset_dims=others, collapsed_slice_dims=(axis,), start_index_map=(axis,)
    )
    sizes: Any = tuple(1 if i == axis else side for i, side in enumerate(image.shape))
    inside = jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return jax.lax.gather(image, index[:, None], numbers, sizes, mode=inside)


def _places(
    source: jax.Array, target: jax.Array, size: int, strong: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Where the pixels of an output lie between those of an image: the one before, and the share beyond.

    The middle of output pixel d is at ``(d + 0.5) · source / target - 0.5``, rounded to single precision.
    Where ``strong``, the pixel before is the one in which the output's begins, and the share is that of the
    output's pixel beyond it: so OpenCV interpolates by INTER_AREA where one side grows.
    """
    places = jnp.arange(size, dtype=jnp.int32)
    begins = jax.lax.div(places * source, target)
    beyond = jnp.maximum((places + 1) * source - (begins + 1) * target, 0)
    part = beyond.astype(jnp.float32) / source.astype(jnp.float32)
    twice = (2 * places + 1) * source - target
    before = jax.lax.div(twice + 2 * target, 2 * target) - 1  # rounded down, also below 0
    share = (twice - before * 2 * target).astype(jnp.float32) / (2 * target).astype(jnp.float32)
    whole = before.astype(jnp.float32)
    return jnp.where(strong, begins, before), jnp.where(strong, part, (whole + share) - whole)


def _linear(
    image: jax.Array, source: Sides, target: Sides, shape: Size, fill: Fill, strong: jax.Array
) -> jax.Array:
    """``cv2.resize`` by INTER_LINEAR, [*shape, C]; beyond the content anything.

    Where ``strong``, a side shrinks much while the other grows, by INTER_AREA: of two pixels too.
    """
    top, down = _places(source[0], target[0], shape[0], strong)
    left, right = _places(source[1], target[1], shape[1], strong)
    right = jnp.where((left < 0) | (left >= source[1] - 1), 0.0, right)
    rows = [jnp.clip(top + step, 0, source[0] - 1) for step in (0, 1)]
    columns = [jnp.clip(left + step, 0, source[1] - 1) for step in (0, 1)]
    below, beside = down[:, None, None], right[:, None]
    if image.dtype != jnp.uint8:
        lines = []
        for row in rows:
            line = _rows(image, row)
            first, second = (_columns(line, column, fill) for column in columns)
            lines.append(first * (1 - beside) + second * beside)
        mixed = lines[0] * (1 - below) + lines[1] * below
        return mixed if image.dtype == jnp.float32 else jnp.clip(jnp.round(mixed), 0, 65535)
    one = jnp.float32(1 << BITS)
    across = [jnp.round(part * one).astype(jnp.int32) for part in (1 - beside, beside)]
    along = [jnp.round(part * one).astype(jnp.int32) for part in (1 - below, below)]
    total, corners = jnp.int32(2), jnp.int32(0)
    for row, weight in zip(rows, along, strict=True):
        line = _rows(image, row)
        ends = [_columns(line, column, fill) for column in columns]
        corners = corners + ends[0] + ends[1]
        level = jax.lax.div(ends[0] * across[0] + ends[1] * across[1], jnp.int32(16))
        total = total + jax.lax.div(weight * level, jnp.int32(1 << 16))
    mixed = jax.lax.div(total, jnp.int32(4))
    # Of two channels, whole halves are means that are rounded to even.
    halved = (source[0] == 2 * target[0]) & (source[1] == 2 * target[1])
    even = jnp.round(corners.astype(jnp.float32) / 4).astype(jnp.int32)
    return jnp.where(_pairs(image.shape[2]) & halved, even, mixed)


def _pairs(channels: int) -> np.ndarray:
    """Which channels are resized two by two, of which those beyond four take their turn by four."""
    last = channels - channels % 4
    return (np.arange(channels) >= last) & (channels % 4 == 2)


def _mean(image: jax.Array, source: Sides, target: Sides, shape: Size, fill: Fill) -> jax.Array:
    """``cv2.resize`` by INTER_AREA, the mean over the area that an output pixel covers, [*shape, C]."""
    whole = (jax.lax.rem(source[0], target[0]) == 0) & (jax.lax.rem(source[1], target[1]) == 0)
    rows, taps_y = _taps(source[0], target[0], shape[0], whole)
    columns, taps_x = _taps(source[1], target[1], shape[1], whole)
    none = jnp.zeros((*shape, image.shape[2]), jnp.float32)

    def add_row(number: jax.Array, total: jax.Array) -> jax.Array:
        row, weight = rows(number)
        line = _rows(image, row)

        def add_column(number: jax.Array, part: jax.Array) -> jax.Array:
            column, share = columns(number)
            taken = _columns(line, column, fill).astype(jnp.float32)
            return part + taken * share[:, None]

        part = jax.lax.fori_loop(0, taps_x, add_column, none)
        return total + part * weight[:, None, None]

    total = jax.lax.fori_loop(0, taps_y, add_row, none)
    cells = jax.lax.div(source[0], target[0]) * jax.lax.div(source[1], target[1])
    total = total * jnp.where(whole, 1.0 / cells.astype(jnp.float32), 1.0)
    if image.dtype == jnp.float32:
        return total
    largest = np.iinfo(image.dtype).max
    mean = jnp.clip(jnp.round(total), 0, largest)
    return mean.astype(jnp.int32) if image.dtype == jnp.uint8 else mean


def _taps(
    source: jax.Array, target: jax.Array, size: int, whole: jax.Array
) -> tuple[Callable[[jax.Array], tuple[jax.Array, jax.Array]], jax.Array]:
    """The source pixels that output pixels cover along an axis.

    Returns:
        A function from the number of a tap to its pixels int32 [size] and weights float32 [size], which
        are 1 where ``whole``; and how many taps there are.
    """
    places = jnp.arange(size, dtype=jnp.int32)
    begin, end = places * source, (places + 1) * source  # in units of 1 / target
    first = jax.lax.div(begin, target)
    least = LEAST * target.astype(jnp.float32)

    def tap(number: jax.Array) -> tuple[jax.Array, jax.Array]:
        cell = first + number
        covered = jnp.minimum((cell + 1) * target, end) - jnp.maximum(cell * target, begin)
        covered = jnp.maximum(covered, 0).astype(jnp.float32)
        share = jnp.where(covered > least, covered / source.astype(jnp.float32), 0.0)
        return jnp.clip(cell, 0, source - 1), jnp.where(whole & (share > 0), 1.0, share)

    return tap, jax.lax.div(source - 1, target) + 2
