"""ResNet-18 and -34 with every stem of ScratchDet (Zhu et al. 2019, sec. 3.3, Fig. 3, Table 2)."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax

from jdet.nn.conv import caffe_xavier
from jdet.nn.conv_norm import ConvNorm
from jdet.nn.norm import Norm
from jdet.nn.pool import max_pool

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Basic blocks per stage by depth (He et al. 2016, Table 1)."""


class ResNet(nn.Module):
    """Basic-block ResNet whose first layers keep as much resolution as wanted.

    The stem is one 7×7 convolution (``root=0``) or ``root`` stacked 3×3 convolutions, of which only
    the first strides, then an optional max-pool. The named variants:

    =====================  ====  ===========  =====  ========================
    variant                root  stem_stride  pool   stages at 300 pixels
    =====================  ====  ===========  =====  ========================
    ResNet-18              0     2            3      c2 75 c3 38 c4 19 c5 10
    ResNet-18-A            0     2            0      c1 150 c2 75 c3 38 c4 19
    ResNet-18-B            0     1            3      c1 150 c2 75 c3 38 c4 19
    Root-ResNet-18/-34     3     1            2      c1 150 c2 75 c3 38 c4 19
    =====================  ====  ===========  =====  ========================

    Stages 2 to 4 halve the resolution in the first 3×3 of their first block, with a 1×1
    projection on the shortcut. Blocks are post-activation (conv-norm-ReLU-conv-norm-add-ReLU) and a
    stage's output is taken after its last ReLU.

    Attributes:
        depth: 18 or 34.
        norm: normalisation after every convolution, the projection included.
        root: 3×3 convolutions of the root block; 0: the plain 7×7.
        stem_stride: stride of the first convolution, 1 or 2.
        pool: window of the stride-2 max-pool after the stem: 3 (padded), 2, or 0 for none.
        width: multiplies every channel count.
        remat: recompute root and blocks in the backward pass instead of keeping their activations.
        kernel_init: of all convolutions.
        dtype: of activations.
    """

    depth: int = 34
    norm: Norm = Norm("batch")
    root: int = 3
    stem_stride: int = 1
    pool: int = 2
    width: float = 1.0
    remat: bool = False
    kernel_init: Any = caffe_xavier
    dtype: Any = None

    def __post_init__(self):
        super().__post_init__()
        for name, allowed in (
            ("depth", tuple(BLOCKS)),
            ("stem_stride", (1, 2)),
            ("pool", (0, 2, 3)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"model.backbone.{name}={getattr(self, name)}; it can be one of {allowed}"
                )
        if self.root < 0:
            raise ValueError(f"model.backbone.root={self.root}; use 0 for the 7×7 stem, or 1, 2, …")

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the four stages, finest first."""
        level = (self.stem_stride == 2) + (self.pool > 0)  # log2 of the stride of stage 1
        return tuple(f"c{level + stage}" for stage in range(4))

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps normalised pictures [B, H, W, 3] to named stages [B, h, w, C]."""
        layer = functools.partial(
            ConvNorm, norm=self.norm, train=train, kernel_init=self.kernel_init, dtype=self.dtype
        )
        stem = nn.remat(_Stem) if self.remat else _Stem
        block = nn.remat(BasicBlock) if self.remat else BasicBlock

        def scaled(channels: int) -> int:
            return max(1, round(channels * self.width))

        x = stem(layer, scaled(64), self.root, self.stem_stride, name="stem")(images)
        if self.pool:
            x = max_pool(x, self.pool, 2, (self.pool - 1) // 2, ceil=self.pool == 2)
        stages = {}
        for stage, (channels, depth) in enumerate(zip((64, 128, 256, 512), BLOCKS[self.depth])):
            for i in range(depth):
                strides = 2 if stage > 0 and i == 0 else 1
                x = block(layer, scaled(channels), strides, name=f"stage{stage + 1}_block{i + 1}")(
                    x
                )
            stages[self.stage_names[stage]] = x
        return stages


class _Stem(nn.Module):
    """The 7×7 convolution, or the root block of stacked 3×3 convolutions."""

    layer: Any
    features: int
    root: int
    strides: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if not self.root:
            return self.layer(self.features, kernel_size=7, strides=self.strides, name="conv1")(x)
        for i in range(1, self.root + 1):
            strides = self.strides if i == 1 else 1
            x = self.layer(self.features, strides=strides, name=f"conv{i}")(x)
        return x


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut (He et al. 2016, Fig. 2; post-activation).

    Attributes:
        layer: ConvNorm with norm, train and dtype bound.
        features: output channels.
        strides: of the first convolution and of the projection.
    """

    layer: Any
    features: int
    strides: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X [B, H, W, C] to [B, h, w, features]."""
        shortcut = x
        if self.strides != 1 or x.shape[-1] != self.features:
            shortcut = self.layer(
                self.features, kernel_size=1, strides=self.strides, relu=False, name="projection"
            )(x)
        x = self.layer(self.features, strides=self.strides, name="conv1")(x)
        x = self.layer(self.features, relu=False, name="conv2")(x)
        return jax.nn.relu(x + shortcut)
