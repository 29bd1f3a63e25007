"""Forms of a convolution that are faster on CPUs than XLA's own, and the limits from which they are.

All give the numbers of the plain convolution up to rounding. They are for float32 on CPUs; accelerators
take plain convolutions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jdet.ops.vma import match_varying

LARGE_IMAGE = 350_000
"""Elements of one image's input or output from which weight gradients of kernels up to 3×3 are products.

Measured on two AVX-512 cores with jaxlib 0.10: at 300×300×64 XLA's weight gradient takes
seven times as long as its forward pass.
"""

LARGE_STEM = 2**20
"""The same for larger kernels on few channels: the 7×7 stem takes half of XLA's time at 320×320 pixels."""

MANY_ELEMENTS, MANY_CHANNELS = 2**16, 64
"""Elements of all images' inputs or outputs, and channels, from which that holds for maps of any size.

On one AVX-512 core with jaxlib 0.10, GFLOP a second by XLA and by products: 16 and 46 for the 256 regions
of 14×14×256 that a mask head sees, 24 and 45 for 32 images at 19×19×512, 18 and 54 for 32 at 24×24×64,
27 and 39 for 2 at 40×40×128, 25 and 46 for 2 at 10×10×512; but 23 and 19 for 2 at 5×5×256, 17 and 5 for 32
at 96×96×16.
"""

MANY_ROWS = 2**20
"""The same elements from which the products are of blocks of rows, which copies less, and not of taps."""

BLOCK = 2**19
"""Elements in both operands of one product of the weight gradient on CPUs: 2 MiB, a core's cache."""

FEW_CHANNELS = 8
"""Largest number of input channels for which all taps are concatenated; more would copy too much."""


def forward(
    x: jax.Array, kernel: jax.Array, strides: int, padding: int
) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """``y(x, kernel)`` on a CPU; None: XLA's convolution."""
    if not _is_product(x, kernel, padding):
        return None
    return functools.partial(_product_of_cells, strides)


def input_gradient(
    x: jax.Array, kernel: jax.Array, strides: int, padding: int
) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """``dx(kernel, dy)`` on a CPU; None: XLA's."""
    if not _is_product(x, kernel, padding):
        return None
    return functools.partial(_gradient_of_cells, x.shape[1:3], strides)


def weight_gradient(
    x: jax.Array, dy: jax.Array, size: int, *, strides: int, padding: int, dilation: int
) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """``dkernel(x, dy)`` on a CPU; None: XLA's."""
    if x.dtype != jnp.float32:
        return None
    if size == 1:
        return functools.partial(_weights_of_taps, 1, strides, padding)
    most = max(x.size, dy.size)
    many = most >= MANY_ELEMENTS and min(x.shape[-1], dy.shape[-1]) >= MANY_CHANNELS
    large = most // x.shape[0] >= (LARGE_IMAGE if size <= 3 else LARGE_STEM)
    if dilation != 1 or not (many or large):
        return None
    if x.shape[-1] <= FEW_CHANNELS:
        return functools.partial(_weights_of_patches, size, strides, padding)
    if size > 3:
        return None
    if strides == 1 and size == 3 and (large or most >= MANY_ROWS):
        return functools.partial(_weights_of_blocks, padding=padding)
    return functools.partial(_weights_of_taps, size, strides, padding)


def _is_product(x, kernel, padding):
    return kernel.shape[0] == 1 and padding == 0 and x.dtype == jnp.float32


def _product_of_cells(strides, x, kernel):
    """A 1×1 convolution as one matrix product of the cells that it reads."""
    return jax.lax.dot_general(x[:, ::strides, ::strides], kernel[0, 0], (((3,), (0,)), ((), ())))


def _gradient_of_cells(shape, strides, kernel, dy):
    """Gradient of that product by the whole map, of a height and width of ``shape``."""
    dx = jax.lax.dot_general(dy, kernel[0, 0], (((3,), (1,)), ((), ())))
    if strides == 1:
        return dx
    behind = [side - 1 - strides * (cells - 1) for side, cells in zip(shape, dy.shape[1:3])]
    around = [(0, 0, 0), *((0, end, strides - 1) for end in behind), (0, 0, 0)]
    return jax.lax.pad(dx, jnp.zeros((), dx.dtype), around)


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
