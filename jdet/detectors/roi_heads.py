"""Heads of the second stage: what RoIs hold, and where its edges are (Girshick 2015)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.nn import padding
from jdet.nn.checked import Checked
from jdet.nn.conv import Conv
from jdet.nn.initialisers import gaussian, he, xavier
from jdet.nn.layer import Dense
from jdet.nn.norm import Norm
from jdet.nn.remat import Remat


class BoxHead(Checked):
    """Classes and box offsets of RoIs (Girshick 2015, Fig. 1): convolutions, then fully connected layers.

    Without convolutions and with two layers this is the head of Faster R-CNN with FPN (Lin et al. 2017a,
    sec. 5.2), with four and one that of Wu & He (2018, sec. 5.2), in which norms can stand. Norms with
    statistics measure the regions that hold something and leave out those that fill up.

    Attributes:
        num_classes: K.
        convs: 3×3 convolutions.
        conv_channels: of the convolutions.
        fcs: fully connected layers.
        fc_channels: of these layers.
        class_agnostic: one box for all classes instead of one for each.
        norm: after every convolution.
        remat: what the backward pass computes again; its part is ``box_head``.
        dtype: of the computation; predictions are float32.
    """

    num_classes: int
    convs: int = 0
    conv_channels: int = 256
    fcs: int = 2
    fc_channels: int = 1024
    class_agnostic: bool = False
    norm: Norm = Norm("none")
    remat: Remat = Remat()
    dtype: Any = jnp.float32

    remat_parts: ClassVar[tuple[str, ...]] = ("box_head",)

    @property
    def scale_invariant(self) -> tuple[str, ...]:
        """Kernels whose scale does not matter (``jdet.nn.observe``)."""
        count = self.convs if self.norm.normalises else 0
        return tuple(f"conv{i}/kernel" for i in range(1, count + 1))

    @property
    def folds(self) -> tuple[tuple[str, str], ...]:
        """Norms that are the only reader of a convolution (``jdet.nn.fold``)."""
        return tuple((f"conv{i}", f"norm{i}") for i in range(1, self.convs + 1))

    @nn.compact
    def __call__(
        self, x: jax.Array, real: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Predictions of the regions of every image, float32.

        Args:
            x: [B, R, h, w, C], features.
            real: bool [B, R], regions that are none but fill up are False.
            train: use and update batch statistics.

        Returns:
            Logits [B, R, 1 + K], background first, and offsets [B, R, K, 4], or [B, R, 1, 4] where they
            are not those of a class.
        """

        def hidden(module, x, real):
            return module._hidden(x, real, train)

        x = self.remat.segment(hidden, "box_head")(self, x, real)
        logits = self._dense(1 + self.num_classes, gaussian, "cls")(x)
        boxes_each = 1 if self.class_agnostic else self.num_classes
        offsets = self._dense(4 * boxes_each, nn.initializers.normal(0.001), "box")(x)
        logits, offsets = logits.astype(jnp.float32), offsets.astype(jnp.float32)
        return logits, offsets.reshape(*offsets.shape[:2], boxes_each, 4)

    def _hidden(self, x, real, train):
        x = region_convs(
            x,
            real,
            convs=self.convs,
            channels=self.conv_channels,
            norm=self.norm,
            train=train,
            dtype=self.dtype,
        )
        x = x.reshape(*x.shape[:2], -1)
        for i in range(1, self.fcs + 1):
            x = jax.nn.relu(self._dense(self.fc_channels, xavier, f"fc{i}")(x))
        return x

    def _dense(self, features, kernel_init, name):
        return Dense(features, kernel_init=kernel_init, dtype=self.dtype, name=name)


def each_region(layer: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """A layer on maps of regions [B, R, h, w, C] as if every region were an image."""
    y = layer(x.reshape(-1, *x.shape[2:]))
    return y.reshape(*x.shape[:2], *y.shape[1:])


def region_convs(
    x: jax.Array, real: jax.Array, *, convs: int, channels: int, norm: Norm, train: bool, dtype: Any
) -> jax.Array:
    """3×3 convolutions, each with a norm and ReLU, on maps of regions; inside a module's compact method.

    Norms with statistics measure the regions that are ``real``; others take every region as an image.

    Args:
        x: [B, R, h, w, C].
        real: bool [B, R].
        convs: how many, named ``conv1``, ``norm1``, …
        channels: of each.
        norm: after each.
        train: use and update batch statistics.
        dtype: of the computation.

    Returns:
        [B, R, h, w, channels].
    """
    for i in range(1, convs + 1):
        conv = Conv(
            channels, use_bias=norm.needs_bias, kernel_init=he, dtype=dtype, name=f"conv{i}"
        )
        x = each_region(conv, x)
        layer = norm(train=train, name=f"norm{i}")
        if norm.has_statistics:
            with padding.regions(real):
                x = layer(x)
        else:
            x = each_region(layer, x)
        x = jax.nn.relu(x)
    return x
