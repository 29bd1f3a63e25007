"""ResNets of basic and bottleneck blocks, with every stem of ScratchDet (Zhu et al. 2019, sec. 3.3)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax

from jdet.nn.checked import Checked
from jdet.nn.conv import scale_channels
from jdet.nn.conv_norm import ConvNorm
from jdet.nn.initialisers import initialiser
from jdet.nn.norm import Norm
from jdet.nn.pool import max_pool, pooled_size
from jdet.nn.remat import Remat
from jdet.nn.residual import BasicBlock, Bottleneck, PreactBlock, preact_parts

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Blocks per stage by depth, bottlenecks from 50 on (He et al. 2016a, Table 1)."""

CHANNELS = (64, 128, 256, 512)
"""Channels of the stages; stages of bottlenecks have four times as many."""


class ResNet(Checked):
    """ResNet with a choice of first layers, which decide how much resolution is kept.

    The stem is one 7×7 convolution (``root=0``) or ``root`` stacked 3×3 convolutions, of which only the
    first has a stride, followed by an optional max-pool. The named variants (Zhu et al. 2019, Fig. 3,
    Table 2):

    =====================  ====  ===========  =====  ========================
    variant                root  stem_stride  pool   stages at 300 pixels
    =====================  ====  ===========  =====  ========================
    ResNet-18, -50, -101   0     2            3      c2 75 c3 38 c4 19 c5 10
    ResNet-18-A            0     2            0      c1 150 c2 75 c3 38 c4 19
    ResNet-18-B            0     1            3      c1 150 c2 75 c3 38 c4 19
    ResNet-50-C, deep      3     2            3      c2 75 c3 38 c4 19 c5 10
    Root-ResNet-18/-34     3     1            2      c1 150 c2 75 c3 38 c4 19
    =====================  ====  ===========  =====  ========================

    Stages 2 to 4 halve the resolution in their first block, with a 1×1 projection on the shortcut. A
    stage's output is taken after its last block; with ``preact`` blocks that is the sum without norm or
    ReLU.

    Attributes:
        depth: 18 or 34 (basic blocks), 50, 101 or 152 (bottlenecks).
        norm: normalisation of every convolution, the projection of post-activation blocks included.
        root: 3×3 convolutions of the root block; 0: the plain 7×7.
        root_channels: output channels of each of them; empty: 64 each.
        stem_stride: stride of the first convolution, 1 or 2.
        pool: window of the stride-2 max-pool after the stem: 3 (padded), 2, or 0 for none.
        caffe_pool: the 3×3 pool is that of Caffe: not padded, output size rounded up. For even sizes the
            maps are equally large; an input of 321 pixels gives 80, 40, 20 (DSSD) instead of 81, 41, 21.
        block: "post" (conv-norm-ReLU, He et al. 2016a) or "preact" (norm-ReLU-conv, He et al. 2016b;
            the Caffe release of ScratchDet).
        norm_first: with "preact", the very first block applies norm and ReLU to its input too. The Caffe
            release does so at depth 18, not at 34.
        tap: "output" of a stage's last block, or its "branch" before the addition (the Caffe release
            of ScratchDet predicts from that). With "branch" there is one more stage, ``end``: the
            output of the last block, on which extra levels are built.
        stride_first: in bottlenecks the first 1×1 convolution strides (He et al., Caffe), not the 3×3.
        dilation: of the last stage; above 1 this stage keeps the resolution of the one before, and its
            name, ``c5`` (or ``c4``).
        width: multiplies every channel count.
        remat: what the backward pass computes again; segments are the stem with its pool and the
            residual blocks, or the whole stages.
        freeze_at: parts that do not train, from the input on, as in Detectron2: 1 is the stem, 2 the stem
            and the first stage, 5 everything; 0: none. Their batch norms are fixed too ("frozen_batch").
        zero_init: the last norm of every block starts at scale 0, so that the block starts as its
            shortcut (Goyal et al. 2017, sec. 5.1); only for "post" blocks with a trainable norm.
        kernel_init: initialiser of all convolutions: a name in ``jdet.nn.initialisers.INITIALISERS`` or a
            function.
        dtype: of activations.
    """

    depth: int = 34
    norm: Norm = Norm("batch")
    root: int = 3
    root_channels: tuple[int, ...] = ()
    stem_stride: int = 1
    pool: int = 2
    caffe_pool: bool = False
    block: str = "post"
    norm_first: bool = True
    tap: str = "output"
    stride_first: bool = False
    dilation: int = 1
    width: float = 1.0
    remat: Remat = Remat()
    freeze_at: int = 0
    zero_init: bool = False
    kernel_init: Any = "caffe_xavier"
    dtype: Any = None

    def __post_init__(self):
        super().__post_init__()
        for name, allowed in (
            ("depth", tuple(BLOCKS)),
            ("stem_stride", (1, 2)),
            ("pool", (0, 2, 3)),
            ("block", ("post", "preact")),
            ("tap", ("output", "branch")),
            ("freeze_at", tuple(range(6))),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"model.backbone.{name}={getattr(self, name)!r}; it can be one of {allowed}"
                )
        initialiser(self.kernel_init, "model.backbone.kernel_init")
        if self.zero_init and (
            self.block == "preact" or self.norm.kind in ("none", "frozen_batch")
        ):
            raise ValueError(
                "model.backbone.zero_init=True is for blocks that end in a trainable norm; "
                f"model.backbone.block={self.block!r}, model.norm={self.norm.kind!r}"
            )
        channels = tuple(self.root_channels)
        if channels and len(channels) != self.root:
            raise ValueError(
                f"model.backbone.root_channels={channels} for model.backbone.root={self.root}; give a "
                "number above 0 for each convolution of the root block, or none"
            )
        if self.caffe_pool and self.pool != 3:
            raise ValueError(
                f"model.backbone.caffe_pool=True is for the 3×3 pool; model.backbone.pool={self.pool}"
            )

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the four stages, finest first."""
        level = (self.stem_stride == 2) + (self.pool > 0)  # log2 of the stride of stage 1
        return tuple(f"c{level + stage}" for stage in range(4))

    @property
    def remat_parts(self) -> tuple[str, ...]:
        """Parts to which ``remat`` can be limited."""
        return ("stem", *self.stage_names)

    def stage_geometry(self, size: int) -> dict[str, tuple[int, int]]:
        """Stride and side (cells) of every stage's map for an image of ``size`` pixels a side."""
        stride, side = self.stem_stride, -(-size // self.stem_stride)
        if self.pool:
            stride, side = stride * 2, pooled_size(side, *self._pool())
        found = {}
        for stage, name in enumerate(self.stage_names):
            if self._stride(stage) == 2:
                stride, side = stride * 2, -(-side // 2)
            found[name] = (stride, side)
        return found

    def _pool(self) -> tuple[int, int, int, bool]:
        """Window, stride, padding and rounding of the pool after the stem."""
        padded = self.pool == 3 and not self.caffe_pool
        return self.pool, 2, int(padded), not padded

    def _stride(self, stage: int) -> int:
        return 2 if stage in (1, 2) or (stage == 3 and self.dilation == 1) else 1

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps normalised images [B, H, W, C] to named stages [B, h, w, C]."""
        init = initialiser(self.kernel_init, "model.backbone.kernel_init")
        scaled = functools.partial(scale_channels, width=self.width)

        def stem(_, x):
            channels = tuple(map(scaled, self.root_channels or (CHANNELS[0],) * max(self.root, 1)))
            layer = self._layer(0, train, init)
            x = _Stem(layer, channels, self.root > 0, self.stem_stride, name="stem")(x)
            if self.pool:
                window, strides, padding, ceil = self._pool()
                x = max_pool(x, window, strides, padding, ceil=ceil)
            return x

        def run(_, x, stage, blocks):
            """Consecutive blocks of a stage; returns the output and the branch of the last."""
            branch = x
            block, settings = self._block(stage + 1, train, init)
            for i in blocks:
                extra = {}
                if self.block == "preact" and stage == i == 0:
                    extra = dict(norm_input=self.norm_first)
                x, branch = block(
                    features=scaled(CHANNELS[stage]) * (4 if self.depth >= 50 else 1),
                    strides=self._stride(stage) if i == 0 else 1,
                    dilation=self.dilation if stage == 3 else 1,
                    name=f"stage{stage + 1}_block{i + 1}",
                    **settings,
                    **extra,
                )(x)
            return x, branch

        x, stages = self.remat.segment(stem, "stem")(self, images), {}
        for stage, (name, depth) in enumerate(zip(self.stage_names, BLOCKS[self.depth])):
            branch = x
            length = depth if self.remat.whole_stages else 1
            for first in range(0, depth, length):
                blocks = range(first, first + length)
                part = functools.partial(run, stage=stage, blocks=blocks)
                x, branch = self.remat.segment(part, name)(self, x)
            stages[name] = branch if self.tap == "branch" else x
        return {**stages, "end": x} if self.tap == "branch" else stages

    @staticmethod
    def frozen_paths(freeze_at: int) -> tuple[str, ...]:
        """Patterns of the parameter paths, below the backbone's, that ``freeze_at`` freezes."""
        stages = [f"stage{stage}_block.*" for stage in range(1, freeze_at)]
        return ("stem/.*", *stages) if freeze_at else ()

    def _norm(self, part: int) -> Norm:
        """The norm of the stem (0) or of a stage (from 1 on)."""
        fixed = part < self.freeze_at and self.norm.has_statistics
        return dataclasses.replace(self.norm, kind="frozen_batch") if fixed else self.norm

    def _layer(self, part: int, train: bool, init: Any) -> Any:
        """Convolution and norm of a part."""
        norm = self._norm(part)
        return functools.partial(
            ConvNorm, norm=norm, train=train, kernel_init=init, dtype=self.dtype
        )

    def _block(self, part: int, train: bool, init: Any) -> tuple[Any, dict[str, Any]]:
        """The class of the blocks of a stage, and the fields that all of them share."""
        bottleneck = self.depth >= 50
        if self.block == "preact":
            return PreactBlock, dict(
                **preact_parts(self._norm(part), train, init, self.dtype),
                bottleneck=bottleneck,
                stride_first=self.stride_first,
            )
        layer = self._layer(part, train, init)
        shared = dict(layer=layer, last_scale=0.0 if self.zero_init else 1.0)
        if bottleneck:
            return Bottleneck, dict(**shared, stride_first=self.stride_first)
        return BasicBlock, shared


class _Stem(nn.Module):
    """The 7×7 convolution, or the root block of stacked 3×3 convolutions."""

    layer: Any
    channels: tuple[int, ...]
    root: bool
    strides: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, channels in enumerate(self.channels, 1):
            size, strides = 3 if self.root else 7, self.strides if i == 1 else 1
            x = self.layer(channels, kernel_size=size, strides=strides, name=f"conv{i}")(x)
        return x
