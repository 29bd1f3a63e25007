"""The parts of Swin (Liu et al. 2021): patch embedding, block, patch merging."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.nn.attention import WindowAttention
from jdet.nn.gelu import gelu
from jdet.nn.initialisers import small_normal
from jdet.nn.layer import Dense, Layer
from jdet.nn.norm import LayerNorm
from jdet.nn.padding import cleared
from jdet.nn.randomness import DropPath

PATCH = 4
"""Pixels a side of the first tokens."""


class PatchEmbed(nn.Module):
    """Turns squares of 4×4 pixels into tokens: a convolution of stride 4 with bias, then a layer norm.

    The image is filled with zeros at the bottom and at the right up to whole squares. Parameters are
    ``proj`` (kernel [4, 4, C, features] and bias) and ``norm``.

    Attributes:
        features: channels of a token.
        kernel_init: initialiser of the kernel.
        bias_init: of the bias.
        dtype: of the computation; None: of the input.
    """

    features: int
    kernel_init: Callable[..., Any] = small_normal
    bias_init: Callable[..., Any] = nn.initializers.zeros
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X [B, H, W, C] to [B, ⌈H/4⌉, ⌈W/4⌉, features]."""
        fields = {field: getattr(self, field) for field in ("kernel_init", "bias_init", "dtype")}
        return LayerNorm(name="norm")(_Squares(self.features, **fields, name="proj")(x))


class _Squares(Layer):
    """The convolution of `PatchEmbed`: squares do not overlap, so it is one product of matrices."""

    features: int
    kernel_init: Callable[..., Any]
    bias_init: Callable[..., Any]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels, dtype = x.shape[-1], self.dtype or x.dtype
        shape = (PATCH, PATCH, channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        squares = _blocks(cleared(x).astype(dtype), PATCH)
        squares = squares.reshape(*squares.shape[:3], -1)
        return squares @ kernel.astype(dtype).reshape(-1, self.features) + bias.astype(dtype)

    def input_power(self, x: jax.Array) -> jax.Array:
        """Mean square of every square, float32 [B, h, w]."""
        return jnp.mean(jnp.square(_blocks(cleared(x).astype(jnp.float32), PATCH)), (3, 4, 5))


class PatchMerging(nn.Module):
    """Halves a map: the channels of 2×2 cells side by side, a layer norm, a dense layer without bias.

    The map is filled with zeros at the bottom and at the right up to even sides. The cells follow each
    other column by column, as in the published code and torchvision (MMDetection: channel by channel).
    Parameters are ``norm`` and ``reduction``.

    Attributes:
        features: output channels; Swin has twice the input's.
        kernel_init: initialiser of the kernel.
        dtype: of the computation; None: of the input.
    """

    features: int
    kernel_init: Callable[..., Any] = small_normal
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X [B, h, w, C] to [B, ⌈h/2⌉, ⌈w/2⌉, features]."""
        blocks = _blocks(cleared(x), 2).swapaxes(3, 4)
        x = LayerNorm(name="norm")(blocks.reshape(*blocks.shape[:3], -1))
        dense = dict(use_bias=False, dtype=self.dtype or x.dtype, kernel_init=self.kernel_init)
        return Dense(self.features, name="reduction", **dense)(x)


class SwinBlock(nn.Module):
    """Window attention and a perceptron with one hidden layer (GELU), each added to its input.

    Both branches begin with a layer norm, and are left out for whole images at random while training.
    Parameters are ``norm1``, ``attention``, ``norm2``, ``fc1``, ``fc2``.

    Attributes:
        attention: fields of ``WindowAttention``.
        hidden: channels of the hidden layer.
        drop_path: probability that an image goes without a branch.
        train: leave branches out.
        kernel_init: initialiser of all kernels.
        dtype: of the computation; None: of the input.
    """

    attention: dict[str, Any]
    hidden: int
    drop_path: float
    train: bool
    kernel_init: Callable[..., Any] = small_normal
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [B, h, w, C] to the same shape."""
        shared = dict(kernel_init=self.kernel_init, dtype=self.dtype or x.dtype)
        y = LayerNorm(name="norm1")(x)
        y = WindowAttention(**self.attention, **shared, name="attention")(y)
        x = x + DropPath(self.drop_path, name="drop_path1")(y, train=self.train)
        y = LayerNorm(name="norm2")(x)
        y = gelu(Dense(self.hidden, name="fc1", **shared)(y))
        y = Dense(x.shape[-1], name="fc2", **shared)(y)
        return x + DropPath(self.drop_path, name="drop_path2")(y, train=self.train)


def _blocks(x: jax.Array, side: int) -> jax.Array:
    """[B, H, W, C] as blocks [B, ⌈H/side⌉, ⌈W/side⌉, side, side, C], filled up with zeros."""
    count, height, width, channels = x.shape
    rows, columns = -(-height // side), -(-width // side)
    x = jnp.pad(x, ((0, 0), (0, rows * side - height), (0, columns * side - width), (0, 0)))
    return x.reshape(count, rows, side, columns, side, channels).transpose(0, 1, 3, 2, 4, 5)
