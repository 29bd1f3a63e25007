"""Large kernels at the price of small ones (Peng et al. 2017, "Large Kernel Matters", sec. 3.1)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.nn.norm import Norm
from jdet.nn.padding import cleared
from jdet.ops.vma import match_varying


class LargeKernel(nn.Module):
    """A k×k kernel of low rank: a k×1 after a 1×k convolution and a 1×k after a k×1, added up.

    There are no activations. The four convolutions are ``row1`` and ``column2``, ``column1`` and ``row2``.
    From C to N channels they have 2·k·(C + N)·N weights instead of k²·C·N. Then follows the norm, or
    without one a bias.

    Attributes:
        features: output channels, N.
        kernel_size: k, odd.
        norm: of the sum.
        train: passed to the norm.
        kernel_init: initialiser of the four kernels.
        dtype: of the computation; None: of the input.
    """

    features: int
    kernel_size: int
    norm: Norm
    train: bool
    kernel_init: Callable[..., Any]
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X [B, H, W, C] to [B, H, W, features]."""
        fields = dict(features=self.features, kernel_init=self.kernel_init)
        row = functools.partial(_Line, size=(1, self.kernel_size), **fields)
        column = functools.partial(_Line, size=(self.kernel_size, 1), **fields)
        x = x.astype(self.dtype or x.dtype)
        y = column(name="column2")(row(name="row1")(x))
        y = y + row(name="row2")(column(name="column1")(x))
        if self.norm.needs_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(y.dtype)
        return self.norm(train=self.train, name="norm")(y)


class _Line(nn.Module):
    """A convolution with a kernel of one row or one column, that keeps the size.

    Attributes:
        features: output channels.
        size: of the kernel, height and width, both odd.
        kernel_init: initialiser of the kernel.
    """

    features: int
    size: tuple[int, int]
    kernel_init: Callable[..., Any]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X [B, H, W, C] to [B, H, W, features]."""
        shape = (*self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        return self._convolved(cleared(x), kernel.astype(x.dtype))

    def input_power(self, x: jax.Array) -> jax.Array:
        """Mean square of what every position of the output reads, float32 [B, H, W]."""
        squares = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
        mean = jnp.full((*self.size, 1, 1), 1 / math.prod(self.size), jnp.float32)
        return self._convolved(cleared(squares), mean)[..., 0]

    def _convolved(self, x, kernel):
        padding = [(side // 2, side // 2) for side in self.size]
        numbers = ("NHWC", "HWIO", "NHWC")
        kernel = match_varying(x, kernel)
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=numbers)
