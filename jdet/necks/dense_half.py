"""The dense neck of the DSOD-style modification of dense detectors: half of every level is reused."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdet.necks.base import PyramidNeck, check_halving
from jdet.nn.norm import Norm
from jdet.nn.pool import max_pool
from jdet.nn.repeat import repeat_to


class DenseHalf(PyramidNeck):
    """Levels of which one half is learned from the level before and the other is that level, pooled.

    The finest level is that of a feature pyramid (``jdet.necks.fpn``): the sum of all taps, enlarged, and a
    3×3 convolution. Every further level has two halves of ``channels`` / 2. The learned half is a 1×1
    convolution, ReLU and a 3×3 convolution of stride 2 of the level before, plus a 1×1 convolution of the
    tap of this level where there is one. The reused half is the level before after a 2×2 max-pool and a 1×1
    convolution. The paper of the hybrids (sec. 3.1) prints the idea alone; layers are as in DSOD.

    Attributes:
        taps: each of twice the stride of the one before.
        extra: levels above the last tap.
        use_norm: every convolution is followed by the model's norm and has no bias.
    """

    extra: int = 2
    use_norm: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_halving(self.taps)

    def extra_sizes(self, size: int) -> list[int]:
        """Map sizes of the levels added above a last tap of ``size`` cells a side."""
        return [-(-size // 2**i) for i in range(1, self.extra + 1)]

    def pyramid(self, stages: dict[str, jax.Array], train: bool) -> list[jax.Array]:
        """As in ``PyramidNeck``."""
        layer = self.convolution(self.norm if self.use_norm else Norm("none"), train)
        width = self.features
        half = width // 2
        laterals = [layer(width, kernel_size=1, name=f"lateral_{t}")(stages[t]) for t in self.taps]
        joined = laterals.pop()
        for x in reversed(laterals):
            joined = x + repeat_to(joined, x.shape[1], x.shape[2])
        levels = [layer(width, name=f"output_{self.taps[0]}")(joined)]
        for i in range(1, len(self.taps) + self.extra):
            below, name = levels[-1], f"level{i + 1}"
            x = layer(width - half, kernel_size=1, relu=True, name=f"{name}_1")(below)
            x = layer(width - half, strides=2, padding=1, name=f"{name}_2")(x)
            if i < len(self.taps):
                tap = self.taps[i]
                x = x + layer(width - half, kernel_size=1, name=f"{name}_{tap}")(stages[tap])
            reused = max_pool(below, 2, ceil=True)
            reused = layer(half, kernel_size=1, name=f"{name}_reused")(reused)
            levels.append(jnp.concatenate([x, reused], axis=-1))
        return levels
