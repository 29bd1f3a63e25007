"""Truncated VGG-16 of SSD (Liu et al. 2016; the "reduced, atrous" network of the Caffe release)."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax

from jdet.nn.checked import Checked
from jdet.nn.conv import scale_channels
from jdet.nn.conv_norm import ConvNorm
from jdet.nn.norm import Norm
from jdet.nn.pool import max_pool
from jdet.nn.remat import Remat

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of 3×3 convolutions of each VGG-16 block."""


class VGG16(Checked):
    """VGG-16 up to fc7, with fc6 a dilated 3×3 and fc7 a 1×1 convolution.

    Every convolution is followed by norm and ReLU; there is no dropout. Stages: ``c2`` (stride 4,
    conv3_3), ``c3`` (stride 8, conv4_3: 38×38 at 300 pixels), ``c4`` (stride 16, fc7: 19×19).

    Attributes:
        norm: normalisation after every convolution.
        width: multiplies every channel count.
        norm_after_pool: norm and ReLU after each of the five pools too, as in the released ScratchDet
            generator (in the paper norms follow convolutions only).
        remat: what the backward pass computes again; a segment is a block with its pool, and part
            ``c4`` is the last of them with fc6 and fc7.
        dtype: of activations.
    """

    norm: Norm = Norm("none")
    width: float = 1.0
    norm_after_pool: bool = False
    remat: Remat = Remat()
    dtype: Any = None

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages, finest first."""
        return ("c2", "c3", "c4")

    @property
    def remat_parts(self) -> tuple[str, ...]:
        """Parts to which ``remat`` can be limited: the blocks, by stage."""
        return ("c0", "c1", "c2", "c3", "c4")

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps normalised images [B, H, W, C] to named stages [B, h, w, C]."""
        layer = functools.partial(ConvNorm, norm=self.norm, train=train, dtype=self.dtype)
        scaled = functools.partial(scale_channels, width=self.width)

        def pool(x, window, strides, name, padding=0):
            x = max_pool(x, window, strides, padding, ceil=True)
            if self.norm_after_pool:
                x = jax.nn.relu(self.norm(train=train, name=f"{name}_norm")(x))
            return x

        def run(_, x, i):
            """Block i: its output, and the input of the next block."""
            channels, depth = BLOCKS[i - 1]
            y = _Block(layer, scaled(channels), depth, name=f"block{i}")(x)
            if i < len(BLOCKS):
                return y, pool(y, 2, 2, f"pool{i}")
            x = pool(y, 3, 1, "pool5", padding=1)
            x = layer(scaled(1024), kernel_size=3, dilation=6, padding=6, name="fc6")(x)
            x = layer(scaled(1024), kernel_size=1, name="fc7")(x)
            return x, x

        x, stages = images, {}
        for i, part in enumerate(self.remat_parts, start=1):
            segment = self.remat.segment(functools.partial(run, i=i), part)
            stages[part], x = segment(self, x)
        return {name: stages[name] for name in self.stage_names}


class _Block(nn.Module):
    """Several 3×3 convolutions at one resolution."""

    layer: Any
    features: int
    depth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(1, self.depth + 1):
            x = self.layer(self.features, name=f"conv{i}")(x)
        return x
