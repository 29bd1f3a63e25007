"""DSOD's densely connected backbone (Shen et al. 2017, Table 1)."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.nn.checked import Checked
from jdet.nn.conv import scale_channels
from jdet.nn.conv_norm import ConvNorm, NormConv
from jdet.nn.initialisers import caffe_xavier
from jdet.nn.norm import Norm
from jdet.nn.pool import max_pool
from jdet.nn.remat import Remat


class DSOD(Checked):
    """DS/A-B-k-θ: a stem, dense blocks, and transitions, some of which keep the resolution.

    A dense layer is a 1×1 convolution to B channels and a 3×3 convolution to k; its output is concatenated
    to its input. A 1×1 transition ends every block. The first two blocks have stride 4 and 8 and are
    max-pooled after their transition; all others stay at stride 16 ("transition without pooling").
    The stem is conv-norm-ReLU, everything after it pre-activation. Stages are the outputs of transitions,
    without norm or ReLU: ``c2`` (stride 4), ``c3`` (stride 8, 38×38 at 300 pixels) and ``c4`` (stride 16,
    19×19, the last transition).

    Attributes:
        first: A, channels of the first convolution; the stem ends with twice as many.
        bottleneck: B, channels of the 1×1 convolution of every dense layer.
        growth: k, channels every dense layer adds.
        compression: θ in (0, 1], share of its input's channels that a transition keeps.
        blocks: dense layers per block, three or more blocks; (6, 8, 8) leaves out the transition
            without pooling.
        stem: three 3×3 convolutions and a 2×2 max-pool; False: one 7×7 and a 3×3 max-pool.
        transition_base: number of channels that the first transition assumes for the stem; 0: the actual
            number. The published plain models with a stem have 64 (352, 736, 1120, 1504 channels
            after the transitions of DS/64-192-48-1 in place of 416, 800, 1184, 1568).
        last_channels: channels of the last transition; 0: by θ like the others. With dense prediction
            layers the published models have 256.
        norm: normalisation of all convolutions.
        width: multiplies A, B, k, ``transition_base`` and ``last_channels``.
        remat: what the backward pass computes again; segments are the stem and the dense blocks, each
            with its pool. By the concatenations a block's activations grow with the square of its depth;
            ``convs`` keeps none of them.
        kernel_init: initialiser of all convolutions.
        dtype: of activations.
    """

    first: int = 64
    bottleneck: int = 192
    growth: int = 48
    compression: float = 1.0
    blocks: tuple[int, ...] = (6, 8, 8, 8)
    stem: bool = True
    transition_base: int = 0
    last_channels: int = 0
    norm: Norm = Norm("batch")
    width: float = 1.0
    remat: Remat = Remat()
    kernel_init: Any = caffe_xavier
    dtype: Any = None

    def __post_init__(self):
        super().__post_init__()
        if len(self.blocks) < 3:
            raise ValueError(
                f"model.backbone.blocks={tuple(self.blocks)}; give the dense layers of three or more "
                "blocks, such as (6, 8, 8, 8)"
            )
        if min(self.transition_channels()) < 1:
            raise ValueError(
                f"model.backbone.compression={self.compression} leaves a transition no channel: "
                f"{self.transition_channels()}; use a larger one"
            )

    def transition_channels(self) -> list[int]:
        """Output channels of every transition, first block first."""
        channels = self._scaled(self.transition_base) or self._stem_channels()
        found = []
        for depth in self.blocks:
            channels = int((channels + depth * self._scaled(self.growth)) * self.compression + 1e-6)
            found.append(channels)
        if self.last_channels:
            found[-1] = self._scaled(self.last_channels)
        return found

    def _stem_channels(self) -> int:
        return self._scaled(self.first) * (2 if self.stem else 1)

    def _scaled(self, channels: int) -> int:
        return scale_channels(channels, self.width) if channels else 0

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages, finest first."""
        return ("c2", "c3", "c4")

    @property
    def remat_parts(self) -> tuple[str, ...]:
        """Parts to which ``remat`` can be limited."""
        return ("stem", *self.stage_names)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps normalised images [B, H, W, C] to named stages [B, h, w, C]."""
        settings = dict(norm=self.norm, train=train, kernel_init=self.kernel_init, dtype=self.dtype)

        def stem(_, x):
            layer = functools.partial(ConvNorm, **settings)
            x = _Stem(layer, self._scaled(self.first), self.stem, name="stem")(x)
            return max_pool(x, 2, ceil=True) if self.stem else max_pool(x, 3, 2, 1)

        x = self.remat.segment(stem, "stem")(self, images)

        layer = functools.partial(NormConv, **settings)
        bottleneck, growth = self._scaled(self.bottleneck), self._scaled(self.growth)

        def block(_, x, i):
            """Block i: its output, and the input of the next block."""
            depth, features = self.blocks[i - 1], channels[i - 1]
            x = _DenseBlock(layer, depth, bottleneck, growth, features, name=f"block{i}")(x)
            return x, max_pool(x, 2, ceil=True) if i < 3 else x

        channels, stages = self.transition_channels(), {}
        for i in range(1, len(self.blocks) + 1):
            name = f"c{min(i + 1, 4)}"
            segment = self.remat.segment(functools.partial(block, i=i), name)
            stages[name], x = segment(self, x)
        return stages


class _Stem(nn.Module):
    """Three 3×3 convolutions, the first with stride 2, or one 7×7 convolution with stride 2."""

    layer: Any
    features: int
    stacked: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if not self.stacked:
            return self.layer(self.features, kernel_size=7, strides=2, padding=3, name="conv1")(x)
        x = self.layer(self.features, strides=2, padding=1, name="conv1")(x)
        x = self.layer(self.features, name="conv2")(x)
        return self.layer(2 * self.features, name="conv3")(x)


class _DenseBlock(nn.Module):
    """Dense layers, each of which takes the outputs of all before it, and the 1×1 transition."""

    layer: Any
    depth: int
    bottleneck: int
    growth: int
    features: int

    @property
    def folds(self) -> tuple[tuple[str, str], ...]:
        """Norms that are the only reader of a convolution (``jdet.nn.fold``)."""
        layers = (f"layer{i}" for i in range(1, self.depth + 1))
        return tuple((f"{name}_bottleneck/conv", f"{name}_growth/norm") for name in layers)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(1, self.depth + 1):
            y = self.layer(self.bottleneck, kernel_size=1, name=f"layer{i}_bottleneck")(x)
            y = self.layer(self.growth, name=f"layer{i}_growth")(y)
            x = jnp.concatenate([x, y], axis=-1)
        return self.layer(self.features, kernel_size=1, name="transition")(x)
