"""Normalisation chosen by name and bound once, so that blocks need not know which one they use."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.config import ranges
from jdet.nn.batch_norm import batch_norm_train
from jdet.nn.group_norm import group_norm
from jdet.nn.layer import Layer
from jdet.nn.padding import inside
from jdet.types import Moments

KINDS = ("none", "batch", "sync_batch", "group", "layer", "frozen_batch", "affine_batch")


class BatchNorm(Layer):
    """Batch normalisation (Ioffe & Szegedy 2015) over all axes but the last.

    Statistics and the affine map are float32 whatever the dtype of the input is; padding
    (``jdet.nn.padding``) is excluded from the statistics. Running statistics keep the unbiased variance, as
    in Caffe and PyTorch. Gradients flow through the batch statistics. Applied with ``mutable=["moments"]``
    the layer also stores in that collection a tuple ``seen`` of ``Moments``, one per call. At evaluation a
    norm that is folded (``jdet.nn.fold``) adds its shift.

    Attributes:
        train: normalise with the statistics of the batch and update the running ones.
        momentum: weight of the old running statistics in the new ones (PyTorch's 1 - momentum).
        epsilon: added to the variance.
        group_size: images that share statistics; 0: all images of the batch (of this device, or of
            all devices along ``axis_name``). Smaller than the device's batch: consecutive sub-groups.
        axis_name: mesh axis to reduce over; the caller's ``shard_map`` must bind it.
        initial_scale: of the affine map.
    """

    train: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    group_size: int = 0
    axis_name: str | None = None
    initial_scale: float = 1.0

    is_batch_norm: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises x [B, …, C]; same shape and dtype out."""
        if not self.train and self.has_variable("folded", "shift"):
            return _shifted(x, self.get_variable("folded", "shift"))
        channels = x.shape[-1]
        initial_scale = nn.initializers.constant(self.initial_scale)
        scale = self.param("scale", initial_scale, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        if not self.train:
            return normalise(x, mean.value, var.value, scale, bias, self.epsilon)
        # Only shapes matter while initialising, and no mesh axis is bound then.
        axis_name = None if self.is_initializing() else self.axis_name
        groups = 1
        if self.group_size and self.group_size < x.shape[0]:
            if x.shape[0] % self.group_size:
                raise ValueError(
                    f"parallel.bn_group_size={self.group_size} does not divide the {x.shape[0]} "
                    "images of this device"
                )
            groups, axis_name = x.shape[0] // self.group_size, None
        y, batch_mean, batch_var, count = batch_norm_train(
            x, scale, bias, eps=self.epsilon, axis_name=axis_name, groups=groups, mask=inside(x)
        )
        if self.is_initializing():
            return y
        batch_mean, batch_var = batch_mean.reshape(-1, channels), batch_var.reshape(-1, channels)
        self.sow("moments", "seen", Moments(batch_mean, batch_var, count))
        if self.is_mutable_collection("batch_stats"):
            batch_mean, batch_var = batch_mean.mean(0), batch_var.mean(0)
            larger = jnp.maximum if isinstance(count, jax.Array) else max
            batch_var = batch_var * (count / larger(count - 1, 1))
            for running, found in ((mean, batch_mean), (var, batch_var)):
                moved = self.momentum * running.value + (1 - self.momentum) * found
                if isinstance(count, jax.Array):
                    # Of a head without any region nothing is measured, and its count is 1.
                    moved = jnp.where(count > 1, moved, running.value)
                running.value = moved
        return y


class FrozenBatchNorm(Layer):
    """Batch normalisation whose statistics are fixed, and by default the affine map too.

    What is fixed lives in the ``batch_stats`` collection, which no optimiser updates.

    Attributes:
        epsilon: added to the variance.
        affine: scale and bias are trainable parameters.
        initial_scale: of a trainable affine map.
    """

    epsilon: float = 1e-5
    affine: bool = False
    initial_scale: float = 1.0

    is_batch_norm: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the map to x [B, …, C]; same shape and dtype out."""
        if self.has_variable("folded", "shift"):
            return _shifted(x, self.get_variable("folded", "shift"))
        shape = (x.shape[-1],)

        def fixed(name, init):
            return self.variable("batch_stats", name, init, shape, jnp.float32).value

        mean, var = fixed("mean", jnp.zeros), fixed("var", jnp.ones)
        if self.affine:
            initial_scale = nn.initializers.constant(self.initial_scale)
            scale = self.param("scale", initial_scale, shape, jnp.float32)
            bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        else:
            scale, bias = fixed("scale", jnp.ones), fixed("bias", jnp.zeros)
        return normalise(x, mean, var, scale, bias, self.epsilon)


def normalise(x, mean, var, scale, bias, epsilon):
    """``(x - mean) / sqrt(var + epsilon) · scale + bias`` as one multiply and add; dtype of ``x``."""
    factor = scale * jax.lax.rsqrt(var + epsilon)
    shape = (1,) * (x.ndim - 1) + (-1,)
    factor, shift = factor.reshape(shape), (bias - mean * factor).reshape(shape)
    return (x.astype(jnp.float32) * factor + shift).astype(x.dtype)


def _shifted(x, shift):
    """What is left of a norm that is folded into the convolution before it (``jdet.nn.fold``)."""
    return (x.astype(jnp.float32) + shift).astype(x.dtype)


class LayerNorm(Layer):
    """Normalises the channels of every cell by their mean and variance (Ba et al. 2016).

    Statistics and the affine map are float32 whatever the dtype of the input is. Each cell is normalised
    on its own, so padding has no influence on other cells.

    Attributes:
        epsilon: added to the variance (PyTorch: 1e-5).
        initial_scale: of the affine map.
    """

    epsilon: float = 1e-5
    initial_scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises x [B, …, C]; same shape and dtype out."""
        shape = (x.shape[-1],)
        initial_scale = nn.initializers.constant(self.initial_scale)
        scale = self.param("scale", initial_scale, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        wide = x.astype(jnp.float32)
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + self.epsilon) * scale + bias).astype(x.dtype)


class L2Norm(Layer):
    """Scales the channel vector of every cell to unit length, then by a learned factor per channel.

    Liu et al. 2015, ParseNet, sec. 3.3; SSD has it on conv4_3.

    Attributes:
        initial_scale: 20 in SSD and DSOD.
        epsilon: inside the sum of squares (Caffe SSD: 1e-10).
    """

    initial_scale: float = 20.0
    epsilon: float = 1e-10

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X [B, h, w, C]; same shape and dtype out."""
        scale = self.param(
            "scale", nn.initializers.constant(self.initial_scale), (x.shape[-1],), jnp.float32
        )
        wide = x.astype(jnp.float32)
        length = jax.lax.rsqrt(jnp.sum(wide * wide, axis=-1, keepdims=True) + self.epsilon)
        return (wide * length * scale.reshape(1, 1, 1, -1)).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Norm:
    """A chosen normalisation: call it inside a module to get the layer.

    ``batch`` normalises over the images of one device; ``sync_batch`` over ``group_size`` images,
    across devices where they hold fewer (ScratchDet trains with plain ``batch``, MegDet with
    ``sync_batch``). ``frozen_batch`` is fixed; ``affine_batch`` has fixed statistics and a trainable scale
    and bias. ``group`` has 32 groups (Wu & He 2018), or the largest divisor of the channels below that;
    ``layer`` normalises the channels of every cell (Ba et al. 2016). With ``none`` the convolution before
    it has a bias instead.

    Attributes:
        kind: one of ``KINDS``.
        momentum: of running statistics.
        epsilon: added to variances.
        group_size: images per group of ``sync_batch``; 0: all.
        axis_name: mesh axis of ``sync_batch``; None outside ``shard_map``.
    """

    kind: str = "batch"
    momentum: float = 0.9
    epsilon: float = 1e-5
    group_size: int = 0
    axis_name: str | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"norm {self.kind!r} does not exist; known are {', '.join(KINDS)}")
        ranges.check_made(self)

    @property
    def needs_bias(self) -> bool:
        """Whether the convolution before the norm must have a bias."""
        return self.kind == "none"

    @property
    def normalises(self) -> bool:
        """Whether it divides by the scale of its input, so that this scale does not matter."""
        return self.kind in ("batch", "sync_batch", "group", "layer")

    @property
    def has_statistics(self) -> bool:
        """Whether the layer keeps statistics of the maps it is made for, so that it cannot be shared."""
        return self.kind.endswith("batch")

    def __call__(
        self, *, train: bool, name: str | None = None, initial_scale: float = 1.0
    ) -> Callable[[jax.Array], jax.Array]:
        """The layer, a map of [B, …, C] to the same.

        Args:
            train: as in ``BatchNorm``; the other kinds do the same in training and at evaluation.
            name: of the layer among the parameters.
            initial_scale: of a trainable affine map; 0 on the last norm of a residual branch makes the
                block start as its shortcut (Goyal et al. 2017, sec. 5.1).
        """
        if self.kind == "none":
            return lambda x: x
        if self.kind in ("frozen_batch", "affine_batch"):
            affine = self.kind == "affine_batch"
            return FrozenBatchNorm(self.epsilon, affine, initial_scale, name=name)
        if self.kind == "group":
            return _GroupNorm(self.epsilon, initial_scale, name=name)
        if self.kind == "layer":
            return LayerNorm(self.epsilon, initial_scale, name=name)
        sync = self.kind == "sync_batch"
        return BatchNorm(
            train=train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            group_size=self.group_size if sync else 0,
            axis_name=self.axis_name if sync else None,
            initial_scale=initial_scale,
            name=name,
        )


class _GroupNorm(Layer):
    """Group normalisation with 32 groups, or the largest divisor of the channels below that."""

    epsilon: float
    initial_scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        groups = next(g for g in range(min(32, channels), 0, -1) if channels % g == 0)
        initial_scale = nn.initializers.constant(self.initial_scale)
        scale = self.param("scale", initial_scale, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        return group_norm(x, scale, bias, groups=groups, eps=self.epsilon, mask=inside(x))
