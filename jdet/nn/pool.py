"""Max-pooling with Caffe's and PyTorch's sizes and gradients."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jdet.nn.padding import cleared


def max_pool(
    x: jax.Array,
    window: int,
    strides: int | None = None,
    padding: int = 0,
    *,
    ceil: bool = False,
) -> jax.Array:
    """Maximum over square windows.

    If several values of a window are equal to the maximum, the first in row-major order gets the whole
    gradient, as in Caffe and PyTorch.

    Args:
        x: [B, H, W, C].
        window: side of the window.
        strides: of both axes; None: the window.
        padding: on every side, with minus infinity.
        ceil: Caffe's output size, ``ceil((n + 2p - k) / s) + 1`` without a last window that would start in
            the padding; False: the floor, as in PyTorch.

    Returns:
        [B, h, w, C].
    """
    strides = strides or window
    out = [pooled_size(n, window, strides, padding, ceil) for n in x.shape[1:3]]
    lowest = float(jnp.finfo(x.dtype).min)
    return cleared(_max_pool(cleared(x, lowest), window, strides, padding, *out))


def pooled_size(size: int, window: int, strides: int, padding: int, ceil: bool) -> int:
    """Length of an axis after pooling; arguments as in ``max_pool``."""
    span = size + 2 * padding - window
    if not ceil:
        return span // strides + 1
    count = -(-span // strides) + 1
    return count - 1 if padding and (count - 1) * strides >= size + padding else count


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
def _max_pool(x, window, strides, padding, height, width):
    pieces = _slices(
        _pad(x, window, strides, padding, height, width), window, strides, height, width
    )
    return functools.reduce(jnp.maximum, pieces)


def _forward(x, window, strides, padding, height, width):
    y = _max_pool(x, window, strides, padding, height, width)
    return y, (x, y)


def _backward(window, strides, padding, height, width, saved, dy):
    x, y = saved
    padded = _pad(x, window, strides, padding, height, width)
    taken = jnp.zeros(y.shape, bool)
    shares = []
    for piece in _slices(padded, window, strides, height, width):
        first = (piece == y) & ~taken
        taken = taken | first
        shares.append(jnp.where(first, dy, 0))
    if strides == window:
        # Windows do not overlap: interleave the shares instead of adding them up.
        tiles = jnp.stack(shares, axis=-2).reshape(*dy.shape[:3], window, window, dy.shape[-1])
        gradient = tiles.transpose(0, 1, 3, 2, 4, 5).reshape(padded.shape)
    else:
        rows, columns = padded.shape[1:3]
        gradient = jnp.zeros(padded.shape, dy.dtype)
        for i, share in enumerate(shares):
            top, left = divmod(i, window)
            spread = [
                (low, size - low - (count - 1) * strides - 1, strides - 1)
                for low, size, count in ((top, rows, height), (left, columns, width))
            ]
            config = [(0, 0, 0), *spread, (0, 0, 0)]
            gradient = gradient + jax.lax.pad(share, jnp.zeros((), dy.dtype), config)
    # Undo the padding; cells beyond the last window, which the floor left out, have no gradient.
    undo = [(-padding, n - (m - padding), 0) for n, m in zip(x.shape[1:3], padded.shape[1:3])]
    zero = jnp.zeros((), dy.dtype)
    return (jax.lax.pad(gradient, zero, [(0, 0, 0), *undo, (0, 0, 0)]),)


_max_pool.defvjp(_forward, _backward)


def _pad(x, window, strides, padding, height, width):
    """Pads (or crops) so that the windows cover the map exactly."""
    ends = [(count - 1) * strides + window - padding for count in (height, width)]
    sides = [(padding, end - size, 0) for end, size in zip(ends, x.shape[1:3])]  # negative: crops
    lowest = jnp.asarray(-jnp.inf, x.dtype)
    return jax.lax.pad(x, lowest, [(0, 0, 0), *sides, (0, 0, 0)])


def _slices(padded, window, strides, height, width):
    """The values at every position within the windows, row-major: window² arrays [B, h, w, C]."""
    for top in range(window):
        for left in range(window):
            yield padded[
                :,
                top : top + (height - 1) * strides + 1 : strides,
                left : left + (width - 1) * strides + 1 : strides,
            ]
