"""Images smaller than the network's input: what lies beside their content is kept from them.

A convolution of zeros is a constant, the norms move it and the next convolution carries it into the
image: without care, what a network says of an image depends on how far it was padded. Inside
``content`` every layer that looks further than its own cell sees zeros there, which is what it sees
beyond the edge of an image that fills the input, and norms leave those cells out of their statistics.
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


@contextlib.contextmanager
def content(image_sizes: jax.Array | None, whole: tuple[int, int]) -> Iterator[None]:
    """While a network is traced: its images have these sizes.

    Args:
        image_sizes: int32 [B, 2], height and width of each image's content; None: all images are
            whole, as outside of any such context.
        whole: height and width of the input, pixels.
    """
    token = _CONTENT.set(None if image_sizes is None else (image_sizes, whole))
    try:
        yield
    finally:
        _CONTENT.reset(token)


def inside(x: jax.Array) -> jax.Array | None:
    """Which cells of a map [B, h, w, C] belong to the content; bool [B, h, w, 1], None for all."""
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
