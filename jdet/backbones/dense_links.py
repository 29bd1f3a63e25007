"""What the DSOD-style modification adds to transformers: a stem of convolutions, links between stages.

The paper of the hybrids (sec. 3.1, Fig. 3a) says of it: an Inception-style stem, dense connections
between the stages, half of the maps of every scale new and half reused. Widths and layers are not
printed; these are DSOD's own (Shen et al. 2017), brought to the widths of Swin, so that all stages keep
their shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.backbones.swin import PatchMerging
from jdet.nn.conv import Conv
from jdet.nn.norm import LayerNorm
from jdet.nn.pool import max_pool


class ConvStem(nn.Module):
    """Three 3×3 convolutions, the first of stride 2, a 2×2 max-pool and a layer norm; stride 4 in all.

    Attributes:
        layer: ConvNorm with norm, train, initialiser and dtype bound.
        widths: channels of the three convolutions.
        features: output channels; a 1×1 convolution follows where the last width is another.
        kernel_init: of this convolution.
    """

    layer: Any
    widths: tuple[int, int, int]
    features: int
    kernel_init: Callable[..., Any]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X [B, H, W, C] to [B, ⌈H/4⌉, ⌈W/4⌉, features]."""
        for i, width in enumerate(self.widths, start=1):
            x = self.layer(width, strides=2 if i == 1 else 1, padding=1, name=f"conv{i}")(x)
        x = max_pool(x, 2, ceil=True)
        if self.widths[-1] != self.features:
            init = dict(kernel_init=self.kernel_init, dtype=x.dtype)
            x = Conv(self.features, 1, use_bias=True, name="widen", **init)(x)
        return LayerNorm(name="norm")(x)


class DenseLink(nn.Module):
    """The input of a stage: half from the stage before, half from all earlier stages, pooled.

    The new half is a patch merging of the stage before. For the reused half each earlier stage is
    max-pooled to the map of this one and brought to an equal share of the channels by a 1×1 convolution
    (pool before convolution, as in DSOD). A layer norm follows.

    Attributes:
        features: output channels; the first shares get one channel more where they do not divide.
        kernel_init: initialiser of all kernels.
        dtype: of the computation; None: of the input.
    """

    features: int
    kernel_init: Callable[..., Any]
    dtype: Any = None

    @nn.compact
    def __call__(self, stages: Sequence[jax.Array]) -> jax.Array:
        """Outputs [B, h, w, C] of all earlier stages, finest first, to [B, ⌈h/2⌉, ⌈w/2⌉, features]."""
        init = dict(kernel_init=self.kernel_init, dtype=self.dtype or stages[-1].dtype)
        reused = self.features // 2
        parts = [PatchMerging(self.features - reused, name="merge", **init)(stages[-1])]
        share, more = divmod(reused, len(stages))
        for i, x in enumerate(stages):
            for _ in range(len(stages) - i):
                x = max_pool(x, 2, ceil=True)
            width = share + (i < more)
            parts.append(Conv(width, 1, use_bias=True, name=f"reuse{i + 1}", **init)(x))
        return LayerNorm(name="norm")(jnp.concatenate(parts, axis=-1))
