"""Weighted bi-directional feature pyramid (Tan et al. 2020, "EfficientDet", sec. 3)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.necks.base import PyramidNeck, check_halving
from jdet.nn.norm import Norm
from jdet.nn.pool import max_pool
from jdet.nn.repeat import repeat_to

EPSILON = 1e-4
"""Added to the sum of the weights of a fusion (sec. 3.3)."""


class BiFPN(PyramidNeck):
    """Levels that exchange features from the top down and back up, several times.

    Every level starts as a 1×1 convolution of its tap; above the last tap, of that tap after one 3×3
    max-pool of stride 2, after two, and so on. A pass adds to each level the one above, enlarged (nearest
    neighbour), then to each level the sum below it, pooled as above, together with its input of the pass.
    Sums are weighted by learned numbers that are not negative and add up to one, and go through Swish and
    a 3×3 convolution. Swin's RepPointsV2 has 256 channels, two passes, full convolutions where EfficientDet
    has separable ones, and group norms.

    Attributes:
        taps: each of twice the stride of the one before.
        extra: levels above the last tap.
        repeats: passes.
        group_norm: convolutions are followed by group norms; False: by the model's norm.
    """

    extra: int = 2
    repeats: int = 2
    group_norm: bool = True

    def __post_init__(self):
        super().__post_init__()
        check_halving(self.taps)
        if len(self.taps) + self.extra < 2:
            raise ValueError(
                f"model.neck.extra={self.extra} with model.taps={tuple(self.taps)} leaves one level, which "
                "has nothing to exchange; set model.neck.extra to 1 or more"
            )

    def extra_sizes(self, size: int) -> list[int]:
        """Map sizes of the levels added above a last tap of ``size`` cells a side."""
        return [-(-size // 2**i) for i in range(1, self.extra + 1)]

    def pyramid(self, stages: dict[str, jax.Array], train: bool) -> list[jax.Array]:
        """As in ``PyramidNeck``."""
        norm = Norm("group") if self.group_norm else self.norm
        layer = functools.partial(self.convolution(norm, train), self.features)
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
