"""Randomness that belongs to images: what is drawn for an image depends on the seed, step and image alone.

A network draws from named streams of random numbers: ``dropout`` for what it drops, ``sample`` for the
anchors, proposals or RoIs that it picks. The key of a stream says the step. Inside ``images`` it is folded
with each image's own number, so an image gets the same draw on whichever device, in whichever process and
micro-batch it comes, and no other image's draw depends on it.

    class Sampler(nn.Module):
        @nn.compact
        def __call__(self, scores):  # [B, A]
            keys = per_image_keys(self, "sample", len(scores))
            return jax.vmap(pick)(keys, scores)

Draws depend on the module's place in the network and on the number of the call, so two layers, or two calls
of one, never share a draw.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

STREAMS = ("dropout", "sample")

_KEEP_ALL: contextvars.ContextVar[bool] = contextvars.ContextVar("keep_all", default=False)

_INDEX: contextvars.ContextVar[jax.Array | None] = contextvars.ContextVar("index", default=None)


def streams(key: jax.Array) -> dict[str, jax.Array]:
    """The ``rngs`` of a network's ``init`` or ``apply``: one independent key per stream.

    Args:
        key: scalar key of the step.
    """
    return {name: jax.random.fold_in(key, i) for i, name in enumerate(STREAMS)}


@contextlib.contextmanager
def images(index: jax.Array | None) -> Iterator[None]:
    """While a network is traced: the images of its batch have these numbers.

    Args:
        index: int32 [B], ``Batch.index``; None: they are numbered by their rows, as outside of any such
            context.
    """
    token = _INDEX.set(index)
    try:
        yield
    finally:
        _INDEX.reset(token)


@contextlib.contextmanager
def nothing_dropped() -> Iterator[None]:
    """While a network is traced for training: ``Dropout`` and ``DropPath`` leave everything as it is."""
    token = _KEEP_ALL.set(True)
    try:
        yield
    finally:
        _KEEP_ALL.reset(token)


def per_image_keys(module: nn.Module, stream: str, count: int) -> jax.Array:
    """A key for every image of the batch, for one draw of a module.

    Args:
        module: the bound Linen module that draws.
        stream: one of ``STREAMS``; ``apply`` must have been given its key.
        count: B, images of the array that the draw is for.

    Returns:
        Keys [B].

    Raises:
        ValueError: the batch does not have ``count`` images: the array was reshaped before.
        flax.errors.InvalidRngError: there is no key for the stream.
    """
    index = _INDEX.get()
    if index is None:
        index = jnp.arange(count, dtype=jnp.int32)
    if len(index) != count:
        raise ValueError(
            f"{'/'.join(module.path)} draws for {count} rows, but the batch has {len(index)} images; "
            "draw while the leading axis is that of the images"
        )
    return jax.vmap(jax.random.fold_in, (None, 0))(module.make_rng(stream), index)


class Dropout(nn.Module):
    """Sets numbers to zero at random and scales the others up (Srivastava et al. 2014).

    Attributes:
        rate: probability of a zero, 0 … 1.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, …] to the same shape and dtype; as it is unless ``train``."""
        return _drop(self, x, self.rate, x.shape[1:]) if train else x


class DropPath(nn.Module):
    """Leaves a residual branch out for whole images (stochastic depth; Huang et al. 2016).

    Attributes:
        rate: probability that an image goes without the branch, 0 … 1; the branch of the others is
            divided by ``1 - rate``.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps a branch [B, …] to the same shape and dtype; as it is unless ``train``."""
        return _drop(self, x, self.rate, (1,) * (x.ndim - 1)) if train else x


def _drop(module: nn.Module, x: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Zeros with probability ``rate``, drawn for each image in ``shape``; the rest is scaled up."""
    if rate == 0.0 or _KEEP_ALL.get():
        return x
    if rate == 1.0:
        return jnp.zeros_like(x)
    keys = per_image_keys(module, "dropout", len(x))
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, shape))(keys)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))
