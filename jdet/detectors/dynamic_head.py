"""A stage of Sparse R-CNN: proposals see each other, and their regions through kernels of their own."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.nn.attention import SelfAttention
from jdet.nn.initialisers import xavier
from jdet.nn.layer import Dense
from jdet.nn.norm import LayerNorm
from jdet.nn.remat import Remat


class DynamicConv(nn.Module):
    """Two 1×1 convolutions of a region with kernels made from the features of its proposal.

    Sun et al. 2021, Fig. 4; MMDetection's ``DynamicConv``. Parameters are ``kernels`` (the layer that makes
    them), ``norm1``, ``norm2``, ``fc`` and ``fc_norm``.

    Attributes:
        channels: between the two convolutions, d.
        dtype: of the computation.
    """

    channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, regions: jax.Array) -> jax.Array:
        """Features [B, R, C] and regions [B, R, h, w, C] to [B, R, C]."""
        *outer, width = features.shape
        cells = regions.reshape(*outer, -1, width)
        dense = dict(kernel_init=xavier, dtype=self.dtype)
        kernels = Dense(2 * width * self.channels, name="kernels", **dense)(features)
        first, second = jnp.split(kernels, 2, axis=-1)
        x = jnp.matmul(cells, first.reshape(*outer, width, self.channels))
        x = jax.nn.relu(LayerNorm(name="norm1")(x))
        x = jnp.matmul(x, second.reshape(*outer, self.channels, width))
        x = jax.nn.relu(LayerNorm(name="norm2")(x))
        x = Dense(width, name="fc", **dense)(x.reshape(*outer, -1))
        return jax.nn.relu(LayerNorm(name="fc_norm")(x))


class DynamicHead(nn.Module):
    """Classes and box offsets of proposals from their features and regions (Sun et al. 2021, sec. 3.3).

    Self-attention among the proposals of an image, the dynamic convolution and a perceptron follow one
    another, each added to its input and normalised after that; then come layers for classes and layers
    for boxes, without biases and normalised. As MMDetection's ``DIIHead`` without dropout. All
    proposals are treated alike: in another order they give the same in that order.

    Attributes:
        num_classes: K.
        attention_heads: of the self-attention; must divide the channels.
        dynamic_channels: of ``DynamicConv``.
        hidden: channels of the perceptron's hidden layer.
        cls_layers: before the class logits.
        box_layers: before the box offsets.
        prior: initial probability of each class.
        remat: what the backward pass computes again; its part is ``head``.
        dtype: of the computation; predictions are float32.
    """

    num_classes: int
    attention_heads: int = 8
    dynamic_channels: int = 64
    hidden: int = 2048
    cls_layers: int = 1
    box_layers: int = 3
    prior: float = 0.01
    remat: Remat = Remat()
    dtype: Any = jnp.float32

    remat_parts: ClassVar[tuple[str, ...]] = ("head",)

    @property
    def scale_invariant(self) -> tuple[str, ...]:
        """Kernels whose scale does not matter (``jdet.nn.observe``)."""
        counts = {"cls": self.cls_layers, "box": self.box_layers}
        return tuple(f"{name}_fc{i}/kernel" for name, n in counts.items() for i in range(1, n + 1))

    @nn.compact
    def __call__(
        self, features: jax.Array, regions: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Predictions of the proposals of every image.

        Args:
            features: [B, R, C], of the proposals.
            regions: [B, R, h, w, C], what the proposals' boxes hold.

        Returns:
            Logits float32 [B, R, K], offsets float32 [B, R, 4] and features [B, R, C] for the next stage.
        """

        def predictions(module, features, regions):
            return module._predictions(features, regions)

        return self.remat.segment(predictions, "head")(self, features, regions)

    def _predictions(self, features, regions):
        x = features.astype(self.dtype)
        attention = SelfAttention(
            self.attention_heads, kernel_init=xavier, dtype=self.dtype, name="attention"
        )
        x = LayerNorm(name="attention_norm")(x + attention(x))
        x = x + DynamicConv(self.dynamic_channels, dtype=self.dtype, name="dynamic_conv")(
            x, regions
        )
        x = LayerNorm(name="dynamic_norm")(x)
        y = jax.nn.relu(self._dense(self.hidden, "fc1")(x))
        x = LayerNorm(name="fc_norm")(x + self._dense(x.shape[-1], "fc2")(y))
        cls, box = self._tower(x, "cls", self.cls_layers), self._tower(x, "box", self.box_layers)
        bias = nn.initializers.constant(-math.log(1 / self.prior - 1))
        logits = self._dense(self.num_classes, "cls", bias_init=bias)(cls)
        offsets = self._dense(4, "box")(box)
        return logits.astype(jnp.float32), offsets.astype(jnp.float32), x

    def _tower(self, x, name, layers):
        for i in range(1, layers + 1):
            x = self._dense(x.shape[-1], f"{name}_fc{i}", use_bias=False)(x)
            x = jax.nn.relu(LayerNorm(name=f"{name}_norm{i}")(x))
        return x

    def _dense(self, features, name, **fields):
        return Dense(features, kernel_init=xavier, dtype=self.dtype, name=name, **fields)
