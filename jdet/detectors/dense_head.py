"""The head of dense detectors: two towers of convolutions, shared by the levels of a pyramid."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.nn.conv import Conv
from jdet.nn.initialisers import gaussian, initialiser
from jdet.nn.norm import Norm
from jdet.nn.remat import Remat

CENTERNESS = ("none", "box", "cls")
"""The tower that predicts the centre-ness, or none."""


class DenseHead(nn.Module):
    """Classification and box tower with their predictions (RetinaNet, Lin et al. 2017b, Fig. 3).

    All levels share the convolutions, but not norms that keep statistics: those of the levels differ, so
    that training would normalise by one level's statistics and testing by a mixture. Every level therefore
    has such norms of its own, affine map included (``cls_norm1_0``: first norm of the class tower, finest
    level); other norms are shared.

    Attributes:
        num_classes: K.
        boxes_per_location: A, on every level.
        depth: convolutions of each tower.
        channels: of the towers.
        norm: after every convolution of the towers.
        prior: initial probability of each class at every location, set by the bias of the logits.
        conv_bias: convolutions of the towers have biases before a norm too.
        centerness: the tower that predicts it, "box" or "cls"; "none": it is not predicted.
        tower_init: initialiser of the towers, a name in ``jdet.nn.initialisers.INITIALISERS``; predictions
            are always "gaussian".
        level_scales: offsets are multiplied by a factor that every level learns (FCOS, sec. 3.1).
        remat: what the backward pass computes again; segments are the towers, both part of ``head``.
        dtype: of the computation; predictions are float32.
    """

    num_classes: int
    boxes_per_location: int
    depth: int = 4
    channels: int = 256
    norm: Norm = Norm("none")
    prior: float = 0.01
    conv_bias: bool = False
    centerness: str = "none"
    level_scales: bool = False
    tower_init: str = "gaussian"
    remat: Remat = Remat()
    dtype: Any = jnp.float32

    @property
    def scale_invariant(self) -> tuple[str, ...]:
        """Kernels whose scale does not matter (``jdet.nn.observe``)."""
        if not self.norm.normalises or self.conv_bias:
            return ()
        depths = range(1, self.depth + 1)
        return tuple(f"{kind}_conv{i}/kernel" for kind in ("cls", "box") for i in depths)

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array], *, train: bool) -> dict[str, list[jax.Array]]:
        """Predictions of all levels, float32.

        Args:
            levels: [B, h, w, C] each.
            train: use and update batch statistics.

        Returns:
            "offsets" [B, h·w·A, 4], "logits" [B, h·w·A, K] and, where it is predicted, "centerness"
            [B, h·w·A], its logits; lists with one entry per level.
        """
        bias = nn.initializers.constant(-math.log((1 - self.prior) / self.prior))

        def tower(module, levels, kind):
            return module._tower(levels, kind, train)

        towers = {}
        for kind in ("cls", "box"):
            segment = self.remat.segment(functools.partial(tower, kind=kind), "head")
            towers[kind] = segment(self, list(levels))
        logits = self._predict(towers["cls"], "cls", self.num_classes, bias)
        offsets = self._predict(towers["box"], "box", 4)
        if self.level_scales:
            scales = self.param("box_scale", nn.initializers.ones, (len(levels),), jnp.float32)
            offsets = [scale * x for scale, x in zip(scales, offsets)]
        outputs = {"offsets": offsets, "logits": logits}
        if self.centerness != "none":
            centerness = self._predict(towers[self.centerness], "centerness", 1)
            outputs["centerness"] = [x[..., 0] for x in centerness]
        return outputs

    def _tower(self, levels, kind, train):
        for i in range(1, self.depth + 1):
            levels = conv_on_levels(
                levels,
                f"{kind}_conv{i}",
                f"{kind}_norm{i}",
                self.channels,
                norm=self.norm,
                train=train,
                bias=self.conv_bias,
                kernel_init=initialiser(self.tower_init, "model.tower_init"),
                dtype=self.dtype,
            )
        return levels

    def _predict(self, levels, name, outputs, bias_init=nn.initializers.zeros):
        predict = Conv(
            self.boxes_per_location * outputs,
            use_bias=True,
            kernel_init=gaussian,
            bias_init=bias_init,
            dtype=self.dtype,
            name=name,
        )
        return [predict(x).astype(jnp.float32).reshape(x.shape[0], -1, outputs) for x in levels]


def conv_on_levels(
    levels: Sequence[jax.Array],
    conv_name: str,
    norm_name: str,
    channels: int,
    *,
    norm: Norm,
    train: bool,
    kernel_size: int = 3,
    bias: bool = False,
    relu: bool = True,
    kernel_init: Any = gaussian,
    dtype: Any = None,
) -> list[jax.Array]:
    """Convolution, norm and ReLU of a head, part of the module that is being traced.

    All levels share the convolution and norms without statistics; with statistics each level has its own
    norm, ``norm_name`` and the number of the level.

    Args:
        levels: [B, h, w, C] each.
        conv_name: of the convolution.
        norm_name: of the norm.
        channels: of the output.
        norm: after the convolution.
        train: use and update batch statistics.
        kernel_size: of the convolution.
        bias: the convolution has one before a norm too.
        relu: end with a ReLU.
        kernel_init: initialiser of the kernel.
        dtype: of the computation; None: of the input.
    """
    conv = Conv(
        channels,
        kernel_size,
        use_bias=norm.needs_bias or bias,
        kernel_init=kernel_init,
        dtype=dtype,
        name=conv_name,
    )
    if norm.has_statistics:
        norms = [norm(train=train, name=f"{norm_name}_{j}") for j in range(len(levels))]
    else:
        norms = [norm(train=train, name=norm_name)] * len(levels)
    levels = [own(conv(x)) for own, x in zip(norms, levels)]
    return [jax.nn.relu(x) for x in levels] if relu else levels
