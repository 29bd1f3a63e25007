"""Deformable convolution (Dai et al. 2017): the taps of a kernel are read where the network says."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jdet.ops.vma import match_varying


def deform_conv(x: jax.Array, offsets: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution of stride 1 whose taps are moved, bilinear between cells and zero outside the map.

    Where all offsets are zero it is the ordinary convolution with as much zero padding as keeps the size.
    Gradients flow to all arguments; between cells of a map they are those of the bilinear surface, and at
    a cell those on the side of larger coordinates, as in torchvision.

    Args:
        x: [B, h, w, C].
        offsets: float32 [B, h, w, k², 2], y x in cells, taps row by row. A tap that leaves the map by a
            cell or more reads zeros, wherever it is.
        kernel: [k, k, C, N] of an odd k, same dtype as x.

    Returns:
        [B, h, w, N].
    """
    return taps_of(x, offsets, kernel.shape[0]) @ kernel.reshape(-1, kernel.shape[-1])


def taps_of(x: jax.Array, offsets: jax.Array, size: int) -> jax.Array:
    """What the taps of a deformable kernel read: [B, h, w, size² · C], tap by tap; see ``deform_conv``."""
    count, height, width, channels = x.shape
    rows = jnp.arange(height, dtype=jnp.float32)
    columns = jnp.arange(width, dtype=jnp.float32)
    cells = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), axis=-1)
    places = cells[:, :, None] + regular_taps(size) + offsets.astype(jnp.float32)
    read = bilinear_samples(x, places.reshape(count, -1, 2))
    return read.reshape(count, height, width, size**2 * channels)


def regular_taps(size: int) -> jax.Array:
    """Where the taps of an ordinary kernel lie, float32 [size², 2], y x in cells from its middle."""
    reach = jnp.arange(size, dtype=jnp.float32) - size // 2
    return jnp.stack(jnp.meshgrid(reach, reach, indexing="ij"), axis=-1).reshape(-1, 2)


def bilinear_samples(x: jax.Array, places: jax.Array) -> jax.Array:
    """Values of maps between their cells; zero outside.

    The map is read by the flattened index of a cell. What autodiff makes of that, a scatter-add, runs eight
    times as long on CPUs as the loop over windows of 2 × 2 cells which stands there instead (28,800 places
    of 96 channels on one core with jaxlib 0.10).

    Args:
        x: [B, h, w, C].
        places: float32 [B, P, 2], y x in cells; 0 0 is the centre of the first cell.

    Returns:
        [B, P, C] in the dtype of x.
    """
    return _samples(match_varying(places, x), match_varying(x, places))


@jax.custom_vjp
def _samples(x, places):
    first, share = _corners(x, places)
    y, x_ = share[..., :1], share[..., 1:]
    top_left, top_right, low_left, low_right = _cells(x, first)
    top = (1 - x_) * top_left + x_ * top_right
    low = (1 - x_) * low_left + x_ * low_right
    return ((1 - y) * top + y * low).astype(x.dtype)


def _forward(x, places):
    return _samples(x, places), (x, places)


def _backward(saved, gradient):
    x, places = saved
    first, share = _corners(x, places)
    y, x_ = share[..., :1], share[..., 1:]
    top_left, top_right, low_left, low_right = _cells(x, first)
    wide = gradient.astype(jnp.float32)
    down = (1 - x_) * (low_left - top_left) + x_ * (low_right - top_right)
    across = (1 - y) * (top_right - top_left) + y * (low_right - low_left)
    slope = jnp.stack([jnp.sum(wide * part, axis=-1) for part in (down, across)], axis=-1)
    near = (places >= -1) & (places < jnp.array(x.shape[1:3]))
    slope = jnp.where(jnp.all(near, axis=-1, keepdims=True), slope, 0.0)
    shape = x.shape
    spread = jax.lax.platform_dependent(
        first,
        share,
        wide,
        cpu=functools.partial(_spread_in_turn, shape),
        default=functools.partial(_spread, shape),
    )
    return spread[:, 1:-2, 1:-2].astype(x.dtype), slope


_samples.defvjp(_forward, _backward)


def _corners(x, places):
    """The cell above and left of places in the padded map, int32, and how far beyond it they lie, 0 … 1.

    Padded by one cell before and two behind, a map has a window of 2 × 2 cells for every place, and that of
    places outside holds zeros.
    """
    places = jnp.clip(places, -1.0, jnp.array(x.shape[1:3], jnp.float32))
    low = jnp.floor(places)
    low = jnp.where(jnp.isnan(low), -1.0, low)  # a NaN is none of an index
    return low.astype(jnp.int32) + 1, places - low


def _cells(x, first):
    """The four cells of the windows at ``first`` [B, P, 2], float32 [B, P, C] each."""
    count, _, width, channels = x.shape
    width += 3
    padded = jnp.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0))).reshape(count, -1, channels)
    index = first[..., 0] * width + first[..., 1]

    def take(one, index):
        return one.at[index].get(mode="promise_in_bounds")

    for step in (0, 1, width, width + 1):
        yield jax.vmap(take)(padded, index + step).astype(jnp.float32)


def _weights(share):
    """Bilinear weights [..., 2, 2] of windows for shares [..., 2]."""
    both = jnp.stack([1 - share, share], axis=-1)
    return both[..., 0, :, None] * both[..., 1, None, :]


def _spread(shape, first, share, gradient):
    """Adds gradients [B, P, C] to the windows that were read; padded map [B, h + 3, w + 3, C]."""
    count, height, width, channels = shape

    def one_image(first, share, gradient):
        windows = _weights(share)[..., None] * gradient[:, None, None]
        start = jnp.zeros((height + 3, width + 3, channels), jnp.float32)
        numbers = jax.lax.ScatterDimensionNumbers(
            update_window_dims=(1, 2, 3),
            inserted_window_dims=(),
            scatter_dims_to_operand_dims=(0, 1),
        )
        start = match_varying(gradient, start)
        return jax.lax.scatter_add(start, first, windows, numbers, mode="promise_in_bounds")

    return jax.vmap(one_image)(first, share, gradient)


def _spread_in_turn(shape, first, share, gradient):
    """As ``_spread``, one window after the other and in place."""
    count, height, width, channels = shape
    places = gradient.shape[1]

    def add(number, total):
        image, place = number // places, number % places
        row, column = first[image, place, 0], first[image, place, 1]
        at = (image, row, column, 0)
        window = jax.lax.dynamic_slice(total, at, (1, 2, 2, channels))
        window += _weights(share[image, place])[..., None] * gradient[image, place]
        return jax.lax.dynamic_update_slice(total, window, at)

    start = jnp.zeros((count, height + 3, width + 3, channels), jnp.float32)
    return jax.lax.fori_loop(0, count * places, add, match_varying(gradient, start))
