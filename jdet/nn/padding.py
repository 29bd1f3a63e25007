"""Keeps padding out of the network: masked before every spatial op, excluded from norm statistics.

A convolution of zeros is a constant, norms shift it, and the next convolution mixes it into the image:
without masking, the features of an image depend on how far it was padded. Inside the context ``content``
every layer that reads neighbouring cells sees zeros in the padding, which is what it sees beyond the edge
of an image that fills the input, and norms exclude those cells from their statistics.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import jax
import jax.numpy as jnp

_CONTENT: contextvars.ContextVar[tuple[jax.Array, tuple[int, int]] | None] = contextvars.ContextVar(
    "content", default=None
)
_REAL: contextvars.ContextVar[jax.Array | None] = contextvars.ContextVar("real", default=None)


@contextlib.contextmanager
def content(image_sizes: jax.Array | None, whole: tuple[int, int]) -> Iterator[None]:
    """Context in which a network is traced for images of these sizes.

    Args:
        image_sizes: int32 [B, 2], height and width of each image's content; None: all images fill the
            input, as outside of any such context.
        whole: height and width of the input, pixels.
    """
    token = _CONTENT.set(None if image_sizes is None else (image_sizes, whole))
    try:
        yield
    finally:
        _CONTENT.reset(token)


@contextlib.contextmanager
def regions(real: jax.Array) -> Iterator[None]:
    """Context of a norm on a fixed number of regions of every image, of which some only fill up.

    Args:
        real: bool [B, R], the regions of a map [B, R, h, w, C] that enter statistics.
    """
    token = _REAL.set(real)
    try:
        yield
    finally:
        _REAL.reset(token)


def inside(x: jax.Array) -> jax.Array | None:
    """Which cells of a map [B, …, C] belong to the content; bool [B, …, 1], None for all."""
    real = _REAL.get()
    if real is not None:
        wide = real.reshape(*real.shape, *(1,) * (x.ndim - real.ndim))
        return jnp.broadcast_to(wide, (*x.shape[:-1], 1))
    known = _CONTENT.get()
    if known is None:
        return None
    sizes, whole = known
    cells = []
    for axis in range(2):
        stride = 1
        while -(-whole[axis] // stride) > x.shape[1 + axis]:
            stride *= 2
        cells.append(jnp.arange(x.shape[1 + axis]) < -(-sizes[:, axis, None] // stride))  # [B, h]
    return (cells[0][:, :, None] & cells[1][:, None, :])[..., None]


def cleared(x: jax.Array, value: float = 0.0) -> jax.Array:
    """A map [B, h, w, C] with ``value`` outside the content."""
    where = inside(x)
    return x if where is None else jnp.where(where, x, jnp.asarray(value, x.dtype))


def repeated(x: jax.Array) -> jax.Array:
    """A map [B, h, w, C] in which the edge of the content is there once more, and zeros are behind it.

    To sampling points up to the middle of the cells beside it the content ends as a map of its own does.
    """
    where = inside(x)
    if where is None:
        return x
    for axis in (1, 2):

        def neighbour(values, axis=axis):
            first = jax.lax.slice_in_dim(values, 0, 1, axis=axis)
            return jnp.concatenate(
                [first, jax.lax.slice_in_dim(values, 0, values.shape[axis] - 1, axis=axis)], axis
            )

        there = where | neighbour(where)
        x = jnp.where(there & ~where, neighbour(x), x)
        where = there
    return jnp.where(where, x, 0)
