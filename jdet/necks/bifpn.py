"""Weighted bi-directional feature pyramid (Tan et al. 2020, "EfficientDet", sec. 3)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.necks.dense_half import check_halving
from jdet.necks.fpn import repeat_to
from jdet.nn.conv import scale_channels
from jdet.nn.conv_norm import ConvNorm
from jdet.nn.initialisers import initialiser
from jdet.nn.norm import Norm
from jdet.nn.pool import max_pool
from jdet.nn.remat import Remat

EPSILON = 1e-4
"""Added to the sum of the weights of a fusion (sec. 3.3)."""


class BiFPN(nn.Module):
    """Levels that exchange features from the top down and back up, several times.

    Every level starts as a 1×1 convolution of its tap; above the last tap, of that tap after one 3×3
    max-pool of stride 2, after two, and so on. A pass adds to each level the one above, enlarged (nearest
    neighbour), then to each level the sum below it, pooled as above, together with its input of the pass.
    Sums are weighted by learned numbers that are not negative and add up to one, and go through Swish and
    a 3×3 convolution. Swin's RepPointsV2 has 256 channels, two passes, full convolutions where EfficientDet
    has separable ones, and group norms.

    Attributes:
        taps: backbone stages that enter, finest first, each of twice the stride of the one before.
        channels: of every level.
        extra: levels above the last tap.
        repeats: passes.
        group_norm: convolutions are followed by group norms; False: by the model's norm.
        norm: the model's norm.
        width: multiplies ``channels``.
        kernel_init: initialiser of all convolutions: a name in ``jdet.nn.initialisers.INITIALISERS`` or a
            function.
        remat: what the backward pass computes again; the neck is one segment, ``neck``.
        dtype: of activations.
    """

    taps: tuple[str, ...]
    channels: int = 256
    extra: int = 2
    repeats: int = 2
    group_norm: bool = True
    norm: Norm = Norm("batch")
    width: float = 1.0
    remat: Remat = Remat()
    kernel_init: Any = "xavier"
    dtype: Any = None

    remat_parts = ("neck",)

    def __post_init__(self):
        super().__post_init__()
        initialiser(self.kernel_init, "model.neck.kernel_init")
        check_halving(self.taps)
        if len(self.taps) + self.extra < 2:
            raise ValueError(
                f"model.neck.extra={self.extra} with model.taps={tuple(self.taps)} leaves one level, which "
                "has nothing to exchange; set model.neck.extra to 1 or more"
            )

    def extra_sizes(self, size: int) -> list[int]:
        """Map sizes of the levels added above a last tap of ``size`` cells a side."""
        return [-(-size // 2**i) for i in range(1, self.extra + 1)]

    @nn.compact
    def __call__(self, stages: dict[str, jax.Array], *, train: bool) -> list[jax.Array]:
        """Named stages [B, h, w, C] to levels [B, h, w, channels], finest first."""

        def neck(module, stages):
            return module._levels(stages, train)

        taken = {tap: stages[tap] for tap in self.taps}
        return self.remat.segment(neck, "neck")(self, taken)

    def _levels(self, stages: dict[str, jax.Array], train: bool) -> list[jax.Array]:
        layer = functools.partial(
            ConvNorm,
            scale_channels(self.channels, self.width),
            norm=Norm("group") if self.group_norm else self.norm,
            train=train,
            relu=False,
            kernel_init=initialiser(self.kernel_init, "model.neck.kernel_init"),
            dtype=self.dtype,
        )
        inputs = [stages[tap] for tap in self.taps]
        names = [f"lateral_{tap}" for tap in self.taps]
        for i in range(1, self.extra + 1):
            inputs.append(_halved(inputs[-1]))
            names.append(f"lateral_extra{i}")
        levels = [layer(kernel_size=1, name=name)(x) for name, x in zip(names, inputs)]

        def joined(name, *maps):
            shares = self.param(f"{name}_shares", nn.initializers.ones, (len(maps),), jnp.float32)
            fused = jax.nn.silu(weighted_sum(shares, maps))
            return layer(name=name)(fused)

        for number in range(1, self.repeats + 1):
            down = [levels[-1]]
            for i in reversed(range(len(levels) - 1)):
                x = levels[i]
                above = repeat_to(down[0], x.shape[1], x.shape[2])
                down.insert(0, joined(f"pass{number}_down{i + 1}", x, above))
            # At the top the way down begins with the level itself, which is added once.
            up = [down[0]]
            for i in range(1, len(levels)):
                own = [levels[i], down[i]] if i + 1 < len(levels) else [levels[i]]
                up.append(joined(f"pass{number}_up{i + 1}", *own, _halved(up[-1])))
            levels = up
        return levels


def weighted_sum(shares: jax.Array, maps: Sequence[jax.Array]) -> jax.Array:
    """Fast normalised fusion (Tan et al. 2020, sec. 3.3): shares [n], cut at zero, over their sum."""
    shares = jax.nn.relu(shares)
    shares = shares / (jnp.sum(shares) + EPSILON)
    parts = [share.astype(x.dtype) * x for share, x in zip(shares, maps)]
    return functools.reduce(jnp.add, parts)


def _halved(x: jax.Array) -> jax.Array:
    """Maximum over 3×3 windows with a stride of 2; [B, h, w, C] to half of it, rounded up."""
    return max_pool(x, 3, 2, padding=1)
