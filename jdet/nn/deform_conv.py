"""Deformable convolution as a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.nn.initialisers import gaussian
from jdet.nn.layer import Layer
from jdet.nn.padding import cleared
from jdet.ops.deform_conv import deform_conv, taps_of


class DeformConv(Layer):
    """Deformable convolution of stride 1 without bias (``jdet.ops.deform_conv``).

    Attributes:
        features: output channels.
        kernel_size: side of the square kernel, odd.
        kernel_init: initialiser of the kernel.
        dtype: of the computation; None: of the input. Parameters are float32.
    """

    features: int
    kernel_size: int = 3
    kernel_init: Callable[..., Any] = gaussian
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, offsets: jax.Array) -> jax.Array:
        """X [B, h, w, C] and offsets [B, h, w, k², 2], y x in cells, to [B, h, w, features]."""
        size, dtype = self.kernel_size, self.dtype or x.dtype
        kernel = self.param(
            "kernel", self.kernel_init, (size, size, x.shape[-1], self.features), jnp.float32
        )
        return deform_conv(cleared(x).astype(dtype), offsets, kernel.astype(dtype))

    def input_power(self, x: jax.Array, offsets: jax.Array) -> jax.Array:
        """Mean square of what every position of the output reads, float32 [B, h, w]."""
        read = taps_of(cleared(x).astype(jnp.float32), offsets, self.kernel_size)
        return jnp.mean(jnp.square(read), axis=-1)
