"""Convolution with explicit symmetric padding."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

caffe_xavier = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


def conv2d(x, kernel, *, strides=1, padding=0, dilation=1):
    """NHWC x HWIO -> NHWC."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        [(padding, padding)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


class Conv(nn.Module):
    """Convolution."""

    features: int
    kernel_size: int = 3
    strides: int = 1
    padding: int | None = None
    dilation: int = 1
    use_bias: bool = False
    kernel_init: Any = caffe_xavier
    bias_init: Any = nn.initializers.zeros
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        """X [B, H, W, C]."""
        k = self.kernel_size
        dtype = self.dtype or x.dtype
        kernel = self.param(
            "kernel", self.kernel_init, (k, k, x.shape[-1], self.features), jnp.float32
        )
        padding = self.dilation * (k - 1) // 2 if self.padding is None else self.padding
        y = conv2d(
            x.astype(dtype),
            kernel.astype(dtype),
            strides=self.strides,
            padding=padding,
            dilation=self.dilation,
        )
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
            y = y + bias.astype(dtype)
        return y
