"""Backbones of convolutional and transformer stages in any pattern; Swin is the one of transformers."""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jdet.backbones.dense_links import ConvStem, DenseLink
from jdet.backbones.swin import PATCH, PatchEmbed, PatchMerging, SwinBlock
from jdet.nn.checked import Checked
from jdet.nn.conv_norm import ConvNorm
from jdet.nn.initialisers import he, he_fan_in, small_normal, torch_uniform
from jdet.nn.norm import LayerNorm, Norm
from jdet.nn.pool import max_pool
from jdet.nn.remat import Remat
from jdet.nn.residual import Bottleneck

STEM_CHANNELS = 64
"""Of the 7×7 convolution before a convolutional first stage, whatever the width of the stages."""

STEMS = {"": None, "dsod": None, "dsod128": (64, 64, 128)}
"""First layers: "" what the first stage calls for; else widths of the convolutions of ``ConvStem``."""

KERNEL_INITS = ("he", "swin")


class StageSpec(NamedTuple):
    """A stage of a pattern.

    Attributes:
        kind: "C", residual bottlenecks, or "T", Swin blocks.
        depth: blocks.
    """

    kind: str
    depth: int


def parse_spec(spec: str) -> tuple[StageSpec, ...]:
    """The four stages of a pattern such as "C2-C2-T12-T4".

    Raises:
        ValueError: the pattern has other than four stages, an empty stage, or a convolutional stage after
            a transformer stage.
    """
    found = [re.fullmatch(r"([CT])(\d+)", part) for part in spec.split("-")]
    if len(found) != 4 or not all(found):
        raise ValueError(
            f"model.backbone.spec={spec!r}; give four stages, each C or T with its number of blocks, "
            "such as C2-C2-T12-T4"
        )
    stages = tuple(StageSpec(match[1], int(match[2])) for match in found if match)
    if not all(stage.depth for stage in stages):
        raise ValueError(f"model.backbone.spec={spec!r} has a stage of 0 blocks; give it 1 or more")
    if "TC" in "".join(stage.kind for stage in stages):
        raise ValueError(
            f"model.backbone.spec={spec!r} has a C stage after a T stage, which is not defined; put the "
            "C stages first"
        )
    return stages


class Hybrid(Checked):
    """Four stages of strides 4, 8, 16 and 32, each of residual bottlenecks (C) or of Swin blocks (T).

    Stage i of width W = channels · 2^(i − 1):

    * C: bottlenecks as in ResNet (1×1 to W/4, 3×3, 1×1 to W, the model's norm after each, ReLU after the
      addition). The first block of stages 2–4 strides, on its 3×3 convolution and its projection. Its
      output is the map after the last block.
    * T: Swin blocks of W / ``head_channels`` heads, after a patch merging, also where the stage before is
      C. Windows are shifted in every second block, counted from the first of the stage. Its output gets a
      layer norm, which the next stage does not see.

    Before a C stage comes the stem of ResNet (7×7 convolution of 64 channels and stride 2, norm, ReLU, 3×3
    max-pool), before a T stage the patch embedding of Swin. T2-T2-T6-T2 is Swin-T (Liu et al. 2021,
    Table 7), C3-C4-C6-C3 with 256 channels ResNet-50. The hybrids are those of "Training Object Detectors
    from Scratch: An Empirical Study in the Era of Vision Transformer" (2022), which does not define its C
    stages; this definition gives the parameters and multiply-accumulates that it prints
    (docs/transformers.md).

    Attributes:
        spec: the pattern; no C stage follows a T stage.
        channels: width of stage 1.
        c_width_mult: multiplies the width of each stage if it is C.
        head_channels: of a head of attention.
        window: side of a window of attention, tokens.
        mlp_ratio: hidden channels of a Swin block's perceptron, in widths.
        drop_path: probability that an image goes without a branch in the last Swin block; it rises
            linearly from 0 in the first. C blocks drop nothing.
        attend_padding: as in ``jdet.nn.attention.WindowAttention``.
        stem: "" as above; "dsod": three 3×3 convolutions of half, half and all the channels
            (``ConvStem``); "dsod128": of 64, 64 and 128 and a 1×1 convolution.
        dense_links: T stages 2–4 take one half of their input from all earlier stages (``DenseLink``).
        kernel_init: "he": every kernel normal with variance 2 / fan_in, as in that paper; "swin": dense
            layers normal with deviation 0.02, the patch embedding as PyTorch has it, convolutions as in
            ResNet (variance 2 / fan_out). Tables of positions are normal with deviation 0.02 in both.
        taps: stages that a neck takes, which alone have an output norm; empty: all. All stages are
            returned in any case, those that are not taken without it.
        norm: of the convolutions.
        remat: what the backward pass computes again; segments are the stem and the blocks, or the whole
            stages.
        dtype: of activations.
    """

    spec: str = "C2-C2-T12-T4"
    channels: int = 96
    c_width_mult: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    head_channels: int = 32
    window: int = 7
    mlp_ratio: float = 4.0
    drop_path: float = 0.2
    attend_padding: bool = True
    stem: str = ""
    dense_links: bool = False
    kernel_init: str = "he"
    taps: tuple[str, ...] = ()
    norm: Norm = Norm("batch")
    remat: Remat = Remat()
    dtype: Any = None

    stage_names = ("c2", "c3", "c4", "c5")
    remat_parts = ("stem", *stage_names)

    @property
    def family(self) -> str:
        """Whose optimiser settings suit it (``jdet.train.presets``)."""
        return "transformer" if "T" in self.spec else ""

    def __post_init__(self):
        super().__post_init__()
        for name, allowed in (("stem", tuple(STEMS)), ("kernel_init", KERNEL_INITS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"model.backbone.{name}={getattr(self, name)!r}; it can be one of {allowed}"
                )
        stages = parse_spec(self.spec)
        if len(self.c_width_mult) != len(stages):
            raise ValueError(
                f"model.backbone.c_width_mult={tuple(self.c_width_mult)}; give a factor for each of the "
                "four stages"
            )
        for (kind, _), width in zip(stages, self.widths()):
            if kind == "T" and width % self.head_channels:
                raise ValueError(
                    f"model.backbone.head_channels={self.head_channels} does not divide the {width} "
                    f"channels of a T stage; model.backbone.channels={self.channels} must be a multiple"
                )
        if self.dense_links and any(kind == "C" for kind, _ in stages[1:]):
            raise ValueError(
                f"model.backbone.dense_links=True links T stages; model.backbone.spec={self.spec!r} has C "
                "stages after the first"
            )

    def widths(self) -> list[int]:
        """Channels of every stage."""
        stages = parse_spec(self.spec)
        factors = [m if kind == "C" else 1 for (kind, _), m in zip(stages, self.c_width_mult)]
        return [max(1, round(self.channels * 2**i * m)) for i, m in enumerate(factors)]

    def drop_rates(self) -> list[list[float]]:
        """Drop-path rates of the blocks of every stage; those of C blocks are 0."""
        stages = parse_spec(self.spec)
        blocks = sum(depth for kind, depth in stages if kind == "T")
        rates = iter(np.linspace(0, self.drop_path, blocks).tolist())
        return [[next(rates) if kind == "T" else 0.0 for _ in range(n)] for kind, n in stages]

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps normalised images [B, H, W, C] to named stages [B, h, w, C]."""
        of_dense = he_fan_in if self.kernel_init == "he" else small_normal
        of_convs = he_fan_in if self.kernel_init == "he" else he
        layer = functools.partial(
            ConvNorm, norm=self.norm, train=train, kernel_init=of_convs, dtype=self.dtype
        )
        shared = dict(kernel_init=of_dense, dtype=self.dtype)
        specs, widths, rates = parse_spec(self.spec), self.widths(), self.drop_rates()

        def enter(_, stages, i):
            """What comes before the first block of stage i: nothing before a C stage, which strides."""
            if i == 0 or specs[i].kind == "C":
                return stages[-1]
            if self.dense_links:
                return DenseLink(widths[i], **shared, name=f"stage{i + 1}_link")(stages)
            return PatchMerging(widths[i], **shared, name=f"stage{i + 1}_merge")(stages[-1])

        def run(_, x, i, blocks):
            """Consecutive blocks of stage i."""
            for j in blocks:
                name = f"stage{i + 1}_block{j + 1}"
                if specs[i].kind == "C":
                    strides = 2 if i and j == 0 else 1
                    x, _branch = Bottleneck(layer, widths[i], strides=strides, name=name)(x)
                    continue
                attention = dict(
                    heads=widths[i] // self.head_channels,
                    window=self.window,
                    shift=self.window // 2 if j % 2 else 0,
                    attend_padding=self.attend_padding,
                )
                hidden = round(widths[i] * self.mlp_ratio)
                x = SwinBlock(attention, hidden, rates[i][j], train, **shared, name=name)(x)
            return x

        stem = self.remat.segment(functools.partial(Hybrid._stem, layer=layer), "stem")
        stages, outputs = [stem(self, images)], {}
        for i, (name, (kind, depth)) in enumerate(zip(self.stage_names, specs)):
            x = self.remat.segment(functools.partial(enter, i=i), name)(self, stages)
            length = depth if self.remat.whole_stages else 1
            for first in range(0, depth, length):
                part = functools.partial(run, i=i, blocks=range(first, first + length))
                x = self.remat.segment(part, name)(self, x)
            stages = [*(stages if i else []), x]  # the stem's output is no stage
            used = kind == "T" and name in (self.taps or self.stage_names)
            outputs[name] = LayerNorm(name=f"norm_{name}")(x) if used else x
        return outputs

    def _stem(self, x: jax.Array, layer: Any) -> jax.Array:
        """The first layers, stride 4."""
        if self.stem:
            half = max(1, self.channels // 2)
            widths = STEMS[self.stem] or (half, half, self.channels)
            init = layer.keywords["kernel_init"]
            return ConvStem(layer, widths, self.channels, init, name="stem")(x)
        if parse_spec(self.spec)[0].kind == "T":
            both = torch_uniform(PATCH * PATCH * x.shape[-1])
            embed = functools.partial(PatchEmbed, self.channels, dtype=self.dtype, name="stem")
            if self.kernel_init == "he":
                return embed(kernel_init=he_fan_in)(x)
            return embed(kernel_init=both, bias_init=both)(x)
        x = layer(STEM_CHANNELS, kernel_size=7, strides=2, padding=3, name="stem")(x)
        return max_pool(x, 3, 2, 1)
