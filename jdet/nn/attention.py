"""Self-attention, in windows of a map, as in Swin (Liu et al. 2021, sec. 3.2), and among a set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jdet.nn.initialisers import small_normal
from jdet.nn.layer import Dense, Layer
from jdet.nn.padding import cleared, inside

LEFT_OUT = -1e9
"""Added in place of the product of a query with a key that it must not see; its exponential is 0."""


class WindowAttention(Layer):
    """Attention of the tokens of each window among themselves, with a bias by relative position.

    The map is filled with zeros at the bottom and at the right up to whole windows. With ``shift``, windows
    begin that many rows and columns later and wrap around the edges; tokens that are no neighbours in the
    map do not see each other then. Along an axis that one window covers nothing is shifted (torchvision and
    the classifiers of Swin; MMDetection shifts there too).

    Products of queries with keys and their softmax are float32. Parameters are named ``qkv``, ``proj``
    (dense layers) and ``position_bias`` [(2·window − 1)², heads].

    Attributes:
        heads: H; must divide the channels.
        window: side of a window, tokens.
        shift: of the windows, tokens; 0 in every other block.
        attend_padding: zeros beyond the edge of an image are seen by attention, as in the reference
            implementations (their keys and values are the biases of ``qkv``). False: they are left out,
            also those inside the network input beside smaller images (``jdet.nn.padding``), so that an
            image's features do not depend on how far it was padded.
        kernel_init: initialiser of both kernels.
        dtype: of the computation; None: of the input.
    """

    heads: int
    window: int = 7
    shift: int = 0
    attend_padding: bool = True
    kernel_init: Callable[..., Any] = small_normal
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [B, h, w, C] to the same shape."""
        count, height, width, channels = x.shape
        dtype = self.dtype or x.dtype
        sides = [-(-n // self.window) * self.window for n in (height, width)]
        shifts = tuple(self.shift if n > self.window else 0 for n in sides)
        fill = ((0, 0), (0, sides[0] - height), (0, sides[1] - width), (0, 0))

        def windows(x):
            x = jnp.pad(x, fill)
            return to_windows(roll(x, (-shifts[0], -shifts[1])), self.window)

        seen = None if self.attend_padding else inside(x)
        if not self.attend_padding and seen is None and sides != [height, width]:
            seen = jnp.ones((count, height, width, 1), bool)
        if seen is not None:
            seen = windows(seen).reshape(count, -1, 1, 1, self.window**2)
        same = None
        if any(shifts):
            region = to_windows(regions(sides, self.window, shifts)[None, :, :, None], self.window)
            same = (region == region.swapaxes(1, 2))[None, :, None]

        tokens = windows(cleared(x))
        dense = dict(dtype=dtype, kernel_init=self.kernel_init)
        qkv = Dense(3 * channels, name="qkv", **dense)(tokens)
        q, k, v = qkv.reshape(*qkv.shape[:2], 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        q = q * (channels // self.heads) ** -0.5
        logits = jnp.matmul(q, k.swapaxes(-1, -2), preferred_element_type=jnp.float32)
        logits = logits + self._position_bias()
        for allowed in (same, seen):
            if allowed is not None:
                shape = (count, -1, *logits.shape[1:])
                logits = jnp.where(allowed, logits.reshape(shape), LEFT_OUT).reshape(logits.shape)
        y = jax.nn.softmax(logits, axis=-1).astype(dtype) @ v
        y = y.swapaxes(1, 2).reshape(tokens.shape)
        y = from_windows(Dense(channels, name="proj", **dense)(y), self.window, *sides)
        return roll(y, shifts)[:, :height, :width]

    def _position_bias(self) -> jax.Array:
        """Bias of every head, query and key of a window, float32 [heads, T, T]."""
        rows = (2 * self.window - 1) ** 2
        table = self.param("position_bias", small_normal, (rows, self.heads), jnp.float32)
        return table[relative_index(self.window)].transpose(2, 0, 1)


class SelfAttention(nn.Module):
    """Attention of the members of a set among themselves, whatever their order (Vaswani et al. 2017).

    Products of queries with keys and their softmax are float32. Parameters are the dense layers ``qkv`` and
    ``proj``.

    Attributes:
        heads: H; must divide the channels.
        kernel_init: initialiser of both kernels.
        dtype: of the computation; None: of the input.
    """

    heads: int
    kernel_init: Callable[..., Any] = small_normal
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [B, n, C] to the same shape."""
        channels, dtype = x.shape[-1], self.dtype or x.dtype
        dense = dict(dtype=dtype, kernel_init=self.kernel_init)
        qkv = Dense(3 * channels, name="qkv", **dense)(x)
        q, k, v = qkv.reshape(*x.shape[:2], 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        q = q * (channels // self.heads) ** -0.5
        logits = jnp.matmul(q, k.swapaxes(-1, -2), preferred_element_type=jnp.float32)
        y = jax.nn.softmax(logits, axis=-1).astype(dtype) @ v
        return Dense(channels, name="proj", **dense)(y.swapaxes(1, 2).reshape(x.shape))


def to_windows(x: jax.Array, window: int) -> jax.Array:
    """Cuts [B, H, W, C] into windows [B·n, window², C], row by row; sides are multiples of ``window``."""
    count, height, width, channels = x.shape
    x = x.reshape(count, height // window, window, width // window, window, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, window * window, channels)


def from_windows(windows: jax.Array, window: int, height: int, width: int) -> jax.Array:
    """The map [B, height, width, C] of the windows that ``to_windows`` made of it."""
    grid = (height // window, width // window)
    x = windows.reshape(-1, *grid, window, window, windows.shape[-1])
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, height, width, windows.shape[-1])


def roll(x: jax.Array, shifts: Sequence[int]) -> jax.Array:
    """Moves a map [B, H, W, C] down and to the right; what leaves it comes in on the other side."""
    moved = [(shift, axis) for axis, shift in enumerate(shifts, start=1) if shift]
    if not moved:
        return x
    shift, axes = zip(*moved)
    return jnp.roll(x, shift, axes)


def regions(sides: Sequence[int], window: int, shifts: Sequence[int]) -> jax.Array:
    """Numbers of the parts of a shifted map whose tokens are neighbours; int32 [H, W].

    Rows of a map of 14 under windows of 7 shifted by 3 are in the parts 0 (0 … 6), 1 (7 … 10) and 2
    (11 … 13, which were the first three before the shift).

    Args:
        sides: height and width, multiples of ``window``.
        window: side of a window.
        shifts: of rows and columns.
    """
    parts = []
    for side, shift in zip(sides, shifts):
        # From an iota rather than constants, which XLA would fold into masks of many megabytes.
        i = jnp.arange(side)
        part = (i >= side - window).astype(jnp.int32) + (i >= side - shift).astype(jnp.int32)
        parts.append(part if shift else jnp.zeros_like(i))
    return 3 * parts[0][:, None] + parts[1][None, :]


def relative_index(window: int) -> np.ndarray:
    """Rows of the table of biases for every query and key of a window; int [window², window²].

    A query at (ya, xa) and a key at (yb, xb) have row
    ``(ya − yb + window − 1) · (2·window − 1) + (xa − xb + window − 1)``.
    """
    y, x = np.divmod(np.arange(window * window), window)
    rows = y[:, None] - y[None, :] + window - 1
    return rows * (2 * window - 1) + x[:, None] - x[None, :] + window - 1
