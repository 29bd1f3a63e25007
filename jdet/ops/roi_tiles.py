"""Which cells of a feature pyramid the RoIs (regions of interest) read, in windows of a fixed size.

A RoI can be one cell wide or as long as the map, which a program of static shapes must allow for without
paying for it. So the cells of each RoI are covered by square tiles, and what works on RoIs is a loop over
the tiles that there are: the work grows with what the RoIs cover, the shapes stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdet.ops.vma import match_varying

SIDE = 16
"""Cells along a tile; 8 and 32 take a third more time on a CPU."""


class Tiles(NamedTuple):
    """The tiles of one level, in the order of their RoIs; M = B·R RoIs of all images.

    Attributes:
        image: int32 [M], index of the RoI's image.
        top: int32 [M], first row that the RoI reads.
        left: int32 [M], first column.
        across: int32 [M], tiles side by side.
        count: int32 [M], tiles of the RoI on this level; 0 for RoIs of other levels.
        upto: int32 [M], running sum of ``count``; the last one is the number of tiles.
    """

    image: Any
    top: Any
    left: Any
    across: Any
    count: Any
    upto: Any


class Tile(NamedTuple):
    """One tile.

    Attributes:
        roi: int32, its RoI among the M.
        image: int32, its image.
        row, column: int32, its first cell, which is the RoI's alone: tiles do not overlap.
        top, left: int32, where the window [side, side] begins that holds it; before ``row`` or ``column``
            at the edge of the map.
    """

    roi: Any
    image: Any
    row: Any
    column: Any
    top: Any
    left: Any


def roi_levels(rois: jax.Array, levels: int, finest_scale: float = 56.0) -> jax.Array:
    """The pyramid level of each RoI by its size (Lin et al. 2017, FPN, eq. 1).

    The level is ``floor(log2(sqrt(w · h) / finest_scale + 1e-6))``, clipped to the levels there are. With
    56 and strides 4, 8, 16, 32, an object of 224 pixels is on the third level, as in the paper
    (MMDetection's ``SingleRoIExtractor``; torchvision adds the 1e-6 to the logarithm).

    Example: of four levels, sides of 111.9, 112, 224, 448 and 1000 pixels are on levels 0, 1, 2, 3, 3.

    Args:
        rois: float32 [..., 4], x1 y1 x2 y2 in pixels.
        levels: L.
        finest_scale: the size of RoIs that belong to the finest level is below twice this, in pixels.

    Returns:
        int32 [...], 0 … L-1.
    """
    x1, y1, x2, y2 = (rois[..., i] for i in range(4))
    scale = jnp.sqrt(jnp.maximum((x2 - x1) * (y2 - y1), 0)) / finest_scale + 1e-6
    # Comparisons with powers of two are exact, which the logarithm is not.
    return jnp.sum(scale[..., None] >= 2.0 ** jnp.arange(1, levels), -1, dtype=jnp.int32)


def plan(
    ranges: Sequence[tuple[jax.Array, jax.Array]], wanted: jax.Array, shape: Sequence[int]
) -> Tiles:
    """Covers RoIs by tiles.

    Args:
        ranges: the first and last row that each RoI reads, within the map, int32 [M] each; then columns.
        wanted: bool [M], the RoIs to cover.
        shape: of the level, B h w C.
    """
    images, height, width = shape[:3]
    rows, columns = ranges
    across = (columns[1] - columns[0]) // min(SIDE, width) + 1
    count = jnp.where(wanted, ((rows[1] - rows[0]) // min(SIDE, height) + 1) * across, 0)
    return Tiles(
        image=jnp.repeat(jnp.arange(images, dtype=jnp.int32), wanted.size // images),
        top=rows[0],
        left=columns[0],
        across=across,
        count=count,
        upto=jnp.cumsum(count),
    )


def tile(tiles: Tiles, index: jax.Array, shape: Sequence[int]) -> Tile:
    """The tile of an index below ``tiles.upto[-1]``; the last RoI's for indices beyond."""
    _, height, width = shape[:3]
    roi = jnp.minimum(jnp.sum(tiles.upto <= index, dtype=jnp.int32), tiles.upto.size - 1)
    number = index - (tiles.upto[roi] - tiles.count[roi])
    row = tiles.top[roi] + number // tiles.across[roi] * min(SIDE, height)
    column = tiles.left[roi] + number % tiles.across[roi] * min(SIDE, width)
    return Tile(
        roi=roi,
        image=tiles.image[roi],
        row=row,
        column=column,
        top=jnp.clip(row, 0, height - min(SIDE, height)),
        left=jnp.clip(column, 0, width - min(SIDE, width)),
    )


def window_shape(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """What ``window`` takes from a level of this shape, with the axis of images."""
    return 1, min(SIDE, shape[1]), min(SIDE, shape[2]), shape[3]


def window(level: jax.Array, place: Tile) -> jax.Array:
    """The cells [side, side, C] of a tile's window, float32."""
    corner = place.image, place.top, place.left, 0
    return jax.lax.dynamic_slice(level, corner, window_shape(level.shape))[0].astype(jnp.float32)


def usable(rois: jax.Array, valid: jax.Array | None) -> jax.Array:
    """Bool [M]: valid, and with finite coordinates, without which a loop would have no end."""
    finite = jnp.all(jnp.isfinite(rois), -1)
    return (finite if valid is None else finite & valid).reshape(-1)


def match_levels(
    levels: Sequence[jax.Array], rois: jax.Array, strides: Sequence[int]
) -> tuple[jax.Array, ...]:
    """The levels, checked against the RoIs, and marked as varying where these vary (``ops.vma``).

    Raises:
        ValueError: another number of strides than of levels, or levels that do not fit each other.
    """
    if len(levels) != len(strides):
        raise ValueError(
            f"{len(levels)} levels have {len(strides)} strides; there must be one each"
        )
    if (
        len(
            {(level.shape[0], level.shape[-1]) for level in levels}
            | {(len(rois), levels[0].shape[-1])}
        )
        > 1
    ):
        shapes = ", ".join(str(level.shape) for level in levels)
        raise ValueError(
            f"levels of shapes {shapes} and RoIs of shape {rois.shape} must have one number of images, "
            "and the levels one number of channels"
        )
    return tuple(match_varying(rois, level) for level in levels)
