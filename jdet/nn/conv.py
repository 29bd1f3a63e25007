"""Convolution with explicit symmetric padding and, on CPUs, a custom weight gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.nn.initialisers import caffe_xavier
from jdet.nn.padding import cleared
from jdet.ops.vma import match_varying
from jdet.types import ConfigError

LARGE_IMAGE = 350_000
"""Elements of one image's input or output above which the custom weight gradient is faster on CPUs.

Measured on two AVX-512 cores with jaxlib 0.10: at 300×300×64 XLA's weight gradient takes
seven times as long as its forward pass.
"""

MANY_ELEMENTS, MANY_CHANNELS = 2**20, 64
"""Elements of all images' inputs or outputs, and channels, from which that holds for maps of any size.

On one AVX-512 core with jaxlib 0.10, GFLOP a second by XLA and by products: 16 and 46 for the 256 regions
of 14×14×256 that a mask head sees, 24 and 45 for 32 images at 19×19×512, 18 and 54 for 32 at 24×24×64;
but 17 and 5 for 32 at 96×96×16.
"""

BLOCK = 2**19
"""Elements in both operands of one product of the weight gradient on CPUs: 2 MiB, a core's cache."""

FEW_CHANNELS = 8
"""Largest number of input channels for which all taps are concatenated; more would copy too much."""


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
    return _xla(x, kernel, strides, padding, dilation)


def _forward(x, kernel, strides, padding, dilation):
    return _xla(x, kernel, strides, padding, dilation), (x, kernel)


def _backward(strides, padding, dilation, saved, dy):
    x, kernel = saved
    settings = (strides, padding, dilation)
    (dx,) = jax.linear_transpose(lambda x: _xla(x, kernel, *settings), x)(dy)

    def by_xla(x, dy):
        return jax.linear_transpose(lambda kernel: _xla(x, kernel, *settings), kernel)(dy)[0]

    size = kernel.shape[0]
    most = max(x.size, dy.size)
    many = most >= MANY_ELEMENTS and min(x.shape[-1], dy.shape[-1]) >= MANY_CHANNELS
    if not (many or most // x.shape[0] >= LARGE_IMAGE) or x.dtype != jnp.float32:
        return dx, by_xla(x, dy)
    if dilation == 1 and size <= 3 and x.shape[-1] <= FEW_CHANNELS:
        by_products = functools.partial(_weights_of_patches, size, strides, padding)
    elif strides == 1 and dilation == 1 and size == 3:
        by_products = functools.partial(_weights_of_blocks, padding=padding)
    elif dilation == 1 and size <= 3:
        by_products = functools.partial(_weights_of_taps, size, strides, padding)
    else:
        return dx, by_xla(x, dy)
    dkernel = jax.lax.platform_dependent(x, dy, cpu=by_products, default=by_xla)
    return dx, dkernel


_conv.defvjp(_forward, _backward)


def _xla(x, kernel, strides, padding, dilation):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        [(padding, padding)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _weights_of_blocks(x, dy, *, padding):
    """Weight gradient of a 3×3 convolution of stride 1, one matrix product per block of rows.

    The product of the three column shifts of ``x`` and the three row shifts of ``dy`` contains all nine
    taps, ``[3·C, pixels] · [pixels, 3·N]``. This copies far less than nine shifts of either, and the
    operands of one block stay in the cache.
    """
    count, height, width, channels = x.shape
    features, columns = dy.shape[-1], dy.shape[2]
    rows = height + 2 * padding
    block = max(1, min(rows, BLOCK // (3 * columns * (channels + features))))
    blocks = -(-rows // block)
    spare = blocks * block - rows
    x = jnp.pad(x, ((0, 0), (padding, padding + spare), (padding, padding), (0, 0)))
    dy = jnp.pad(dy, ((0, 0), (2, 2 + spare), (0, 0), (0, 0)))

    def add_block(total, index):
        image, top = index // blocks, index % blocks * block
        left = jax.lax.dynamic_slice(x, (image, top, 0, 0), (1, block, *x.shape[2:]))[0]
        right = jax.lax.dynamic_slice(dy, (image, top, 0, 0), (1, block + 2, *dy.shape[2:]))[0]
        left = jnp.concatenate([left[:, i : i + columns] for i in range(3)], axis=-1)
        right = jnp.concatenate([right[2 - i : 2 - i + block] for i in range(3)], axis=-1)
        product = _product(left, right)
        return total + product, None

    # The carry must vary over the same mesh axes as what is added to it.
    start = match_varying(x, jnp.zeros((3 * channels, 3 * features), x.dtype))
    total, _ = jax.lax.scan(add_block, start, jnp.arange(count * blocks))
    return total.reshape(3, channels, 3, features).transpose(2, 0, 1, 3)


def _weights_of_patches(size, strides, padding, x, dy):
    """Weight gradient as one matrix product with all taps of ``x`` concatenated; for few channels."""
    patches = jnp.concatenate(_taps(size, strides, padding, x, dy), axis=-1)
    return _product(patches, dy).reshape(size, size, x.shape[-1], dy.shape[-1])


def _weights_of_taps(size, strides, padding, x, dy):
    """Weight gradient as one matrix product per tap of the kernel."""
    taps = [_product(tap, dy) for tap in _taps(size, strides, padding, x, dy)]
    return jnp.stack(taps).reshape(size, size, x.shape[-1], dy.shape[-1])


def _taps(size, strides, padding, x, dy):
    """The part of ``x`` that each tap of the kernel reads, row-major, each shaped like ``dy``."""
    height, width = dy.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    return [
        padded[
            :,
            top : top + strides * (height - 1) + 1 : strides,
            left : left + strides * (width - 1) + 1 : strides,
        ]
        for top in range(size)
        for left in range(size)
    ]


def _product(left, right):
    """[…, C] and […, N] to [C, N], summed over everything else."""
    return jax.lax.dot_general(
        left.reshape(-1, left.shape[-1]),
        right.reshape(-1, right.shape[-1]),
        (((0,), (0,)), ((), ())),
    )


class Conv(nn.Module):
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
