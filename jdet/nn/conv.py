"""Convolution with explicit symmetric padding, on CPUs in the forms of ``jdet.nn.conv_forms``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.nn import conv_forms
from jdet.nn.initialisers import caffe_xavier
from jdet.nn.layer import Layer
from jdet.nn.padding import cleared
from jdet.ops.vma import match_varying
from jdet.types import ConfigError


def scale_channels(channels: float, width: float) -> int:
    """Scales a number of channels by a model's width; at least 1.

    Raises:
        ConfigError: the width is not above 0.
    """
    if width <= 0:
        raise ConfigError(f"width={width} multiplies channel counts; it must be above 0")
    return max(1, round(channels * width))


def conv2d(
    x: jax.Array, kernel: jax.Array, *, strides: int = 1, padding: int = 0, dilation: int = 1
) -> jax.Array:
    """Cross-correlation of images with a kernel.

    Args:
        x: [B, H, W, C].
        kernel: [k, k, C, N], same dtype.
        strides: of both axes.
        padding: zeros on every side.
        dilation: of the kernel.

    Returns:
        [B, h, w, N] with ``h = (H + 2·padding - dilation·(k - 1) - 1) // strides + 1``.
    """
    return _conv(x, match_varying(x, kernel), strides, padding, dilation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x, kernel, strides, padding, dilation):
    return _forward(x, kernel, strides, padding, dilation)[0]


def _forward(x, kernel, strides, padding, dilation):
    default = functools.partial(_xla, strides=strides, padding=padding, dilation=dilation)
    cpu = conv_forms.forward(x, kernel, strides, padding)
    return _on_platform(cpu, default, x, kernel), (x, kernel)


def _backward(strides, padding, dilation, saved, dy):
    x, kernel = saved
    settings = dict(strides=strides, padding=padding, dilation=dilation)

    def to_input(kernel, dy):
        return jax.linear_transpose(lambda x: _xla(x, kernel, **settings), x)(dy)[0]

    def to_kernel(x, dy):
        return jax.linear_transpose(lambda kernel: _xla(x, kernel, **settings), kernel)(dy)[0]

    cpu = conv_forms.input_gradient(x, kernel, strides, padding)
    dx = _on_platform(cpu, to_input, kernel, dy)
    cpu = conv_forms.weight_gradient(x, dy, kernel.shape[0], **settings)
    return dx, _on_platform(cpu, to_kernel, x, dy)


_conv.defvjp(_forward, _backward)


def _on_platform(cpu, default, *arrays):
    """What CPUs do, where that is not None, and what other devices do; chosen when a program is lowered."""
    if cpu is None:
        return default(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=cpu, default=default)


def _xla(x, kernel, strides, padding, dilation):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        [(padding, padding)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


class Conv(Layer):
    """Convolution with parameters ``kernel`` [k, k, C, features] and optionally ``bias`` [features].

    Attributes:
        features: output channels.
        kernel_size: side of the square kernel.
        strides: of both axes.
        padding: zeros on every side; None: as many as keep the size at stride 1.
        dilation: of the kernel.
        use_bias: add a bias.
        kernel_init: initialiser of the kernel.
        bias_init: of the bias.
        dtype: of the computation; None: of the input. Parameters are float32.
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    padding: int | None = None
    dilation: int = 1
    use_bias: bool = False
    kernel_init: Callable[..., Any] = caffe_xavier
    bias_init: Callable[..., Any] = nn.initializers.zeros
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X [B, H, W, C] to [B, h, w, features]."""
        size, dtype = self.kernel_size, self.dtype or x.dtype
        kernel = self.param(
            "kernel", self.kernel_init, (size, size, x.shape[-1], self.features), jnp.float32
        )
        padding = self.dilation * (size - 1) // 2 if self.padding is None else self.padding
        if size > 1:
            x = cleared(x)
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

    def input_power(self, x: jax.Array) -> jax.Array:
        """Mean square of what every position of the output reads, float32 [B, h, w]."""
        size = self.kernel_size
        padding = self.dilation * (size - 1) // 2 if self.padding is None else self.padding
        squares = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
        if size > 1:
            squares = cleared(squares)
        mean = jnp.full((size, size, 1, 1), 1 / size**2, jnp.float32)
        options = dict(strides=self.strides, padding=padding, dilation=self.dilation)
        return conv2d(squares, mean, **options)[..., 0]
