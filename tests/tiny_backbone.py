"""A backbone that compiles in no time, for tests of what stands on one."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jdet.nn.conv_norm import ConvNorm
from jdet.nn.norm import Norm

TINY = "tests.tiny_backbone:Tiny"
"""Its name in a config."""


class Tiny(nn.Module):
    """One 3×3 convolution for each stage, with norm and ReLU.

    Attributes:
        stages: names cN of stages of stride 2^N, finest first.
        channels: of every stage.
    """

    stages: tuple[str, ...] = ("c3", "c4", "c5")
    channels: int = 8
    norm: Norm = Norm("batch")
    dtype: Any = jnp.float32

    @property
    def stage_names(self):
        return self.stages

    @nn.compact
    def __call__(self, images, *, train):
        x, stride, found = images, 1, {}
        for name in self.stages:
            step, stride = 2 ** int(name[1:]) // stride, 2 ** int(name[1:])
            layer = ConvNorm(
                self.channels,
                self.norm,
                train,
                strides=step,
                padding=1,
                dtype=self.dtype,
                name=name,
            )
            found[name] = x = layer(x)
        return found
