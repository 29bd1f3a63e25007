"""DSOD's prediction layers, dense and plain (Shen et al. 2017, Fig. 1)."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.necks.ssd_extras import extra_sizes
from jdet.nn.checked import Checked
from jdet.nn.conv import scale_channels
from jdet.nn.conv_norm import NormConv
from jdet.nn.initialisers import caffe_xavier
from jdet.nn.norm import Norm
from jdet.nn.pool import max_pool
from jdet.nn.remat import Remat

LAST_SCALES = ("1x1", "2x2")


class DensePrediction(Checked):
    """Levels of which one half is learned from the level before and the other is that level, pooled.

    Every convolution is norm-ReLU-convolution, so that levels are outputs of convolutions without norm and
    ReLU, concatenated. Above the backbone the learned half of a level is a 1×1 and a 3×3 convolution of
    stride 2, the reused half a 2×2 max-pool and a 1×1 convolution. Both have 256 channels on the first
    level after a stride-16 tap and 128 on later ones. Plain prediction layers (``dense=False``) are the
    learned half alone, with twice the channels in its 3×3. To a backbone tap other than the first, 256
    reused channels are concatenated; its learned half is the last transition of the backbone (256 channels
    in DSOD, see ``DSOD.last_channels``). Channels of DSOD300: 800, 512, 512, 256, 256, 256.

    Attributes:
        taps: backbone stages that are levels themselves, finest first; each has twice the stride of the one
            before.
        dense: reuse half of every level but the first; False: plain prediction layers.
        last_scale: the level after a 3×3 level, which is always the last one. "1x1", as in the paper: a 3×3
            convolution (and pool) without stride and padding. "2x2", as in the released code: stride 2 like
            all others; its default boxes keep the step of a 1×1 map.
        norm: normalisation before every convolution.
        width: multiplies every channel count.
        kernel_init: initialiser of all convolutions.
        dtype: of activations.
        remat: what the backward pass computes again; segments are the levels, all part of ``neck``.
        design_cells: as in ``jdet.necks.ssd_extras.Extras``: inputs of other sizes get the same layers, and
            a level of which no cell is left is omitted.
    """

    taps: tuple[str, ...]
    dense: bool = True
    last_scale: str = "1x1"
    norm: Norm = Norm("batch")
    width: float = 1.0
    kernel_init: Any = caffe_xavier
    dtype: Any = None
    remat: Remat = Remat()

    remat_parts = ("neck",)
    design_cells: int = 0

    @property
    def folds(self) -> tuple[tuple[str, str], ...]:
        """Norms that are the only reader of a convolution (``jdet.nn.fold``)."""
        levels = (f"extra{i}" for i in range(1, 1 + len(self.extra_sizes(2**15))))
        return tuple((f"{name}_1/conv", f"{name}_2/norm") for name in levels)

    def __post_init__(self):
        super().__post_init__()
        if self.last_scale not in LAST_SCALES:
            raise ValueError(
                f"model.neck.last_scale={self.last_scale!r}; it can be one of {LAST_SCALES}"
            )
        strides = [int(tap[1:]) for tap in self.taps]
        if self.dense and strides != list(range(strides[0], strides[0] + len(strides))):
            raise ValueError(
                f"model.taps={tuple(self.taps)}: dense prediction pools each tap to the size of the "
                "next, which must have twice its stride"
            )

    def extra_sizes(self, size: int) -> list[int]:
        """Map sizes of the levels added above a last tap of ``size`` cells a side."""
        sizes = extra_sizes(size, (3,))
        if self.last_scale == "2x2" and [size, *sizes][-2:] == [3, 1]:
            sizes[-1] = 2
        return sizes

    @nn.compact
    def __call__(self, stages: dict[str, jax.Array], *, train: bool) -> list[jax.Array]:
        """Named stages [B, h, w, C] to levels [B, h, w, C], finest first."""
        layer = functools.partial(
            NormConv, norm=self.norm, train=train, kernel_init=self.kernel_init, dtype=self.dtype
        )
        scaled = functools.partial(scale_channels, width=self.width)

        def join(_, x, below, tap):
            """A tap and, with dense prediction, the level below it, pooled."""
            if not self.dense:
                return x
            reused = max_pool(below, 2, ceil=True)
            reused = layer(scaled(256), kernel_size=1, name=f"{tap}_reused")(reused)
            return jnp.concatenate([x, reused], axis=-1)

        def extend(_, below, i, features, valid):
            """The level above ``below``."""
            strides, padding = (1, 0) if valid else (2, 1)
            x = layer(features, kernel_size=1, name=f"extra{i}_1")(below)
            x = layer(
                features if self.dense else 2 * features,
                strides=strides,
                padding=padding,
                name=f"extra{i}_2",
            )(x)
            if self.dense:
                reused = max_pool(below, 3, 1) if valid else max_pool(below, 2, ceil=True)
                reused = layer(features, kernel_size=1, name=f"extra{i}_reused")(reused)
                x = jnp.concatenate([reused, x], axis=-1)
            return x

        levels = [stages[self.taps[0]]]
        for tap in self.taps[1:]:
            segment = self.remat.segment(functools.partial(join, tap=tap), "neck")
            levels.append(segment(self, stages[tap], levels[-1]))
        first_wide = self.taps[-1] == "c4"
        cells = self.design_cells or min(levels[-1].shape[1:3])
        for i, size in enumerate(self.extra_sizes(cells), start=1):
            below = levels[-1]
            features = scaled(256 if i == 1 and first_wide else 128)
            valid = cells == 3 and size == 1
            if valid and min(below.shape[1:3]) < 3:
                break
            part = functools.partial(extend, i=i, features=features, valid=valid)
            levels.append(self.remat.segment(part, "neck")(self, below))
            cells = size
        return levels
