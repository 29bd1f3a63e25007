"""The head of RepPointsV2: points, classes, corners and maps of classes (Chen et al. 2020, Fig. 4)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.detectors.dense_head import conv_on_levels
from jdet.nn.conv import Conv
from jdet.nn.deform_conv import DeformConv
from jdet.nn.initialisers import gaussian, initialiser
from jdet.nn.norm import Norm
from jdet.nn.padding import cleared
from jdet.nn.remat import Remat
from jdet.ops.corner_pool import COLUMNS, ROWS, running_max
from jdet.ops.deform_conv import regular_taps

POINTS = 9
"""Points of an object, one per tap of a 3×3 kernel."""

CORNERS = {"tl": True, "br": False}
"""The corners, and whether their maxima run from the end: those of the top left corner do."""


class RepPointsHead(nn.Module):
    """Towers, a branch for classes of regions, one for corners, and two deformable convolutions.

    A box tower and a class tower of ``depth`` 3×3 convolutions, and one more on top of the former. Of that,
    classes are predicted cell by cell ("semantic"), and an embedding of it is added to all three. Corners
    have pooled features of their own. The box tower predicts nine points; at these points the two last
    convolutions read class and box features, together with what was predicted about corners, and predict
    classes and refined points. Hidden convolutions have no bias before a norm.

    All levels share the convolutions, but not norms that keep statistics, as in ``DenseHead``.

    Attributes:
        num_classes: K.
        depth: convolutions of each tower.
        channels: of the towers.
        corner_channels: of the maps whose maxima are taken.
        norm: after hidden convolutions.
        prior: initial probability of classes and corners everywhere, set by biases.
        conv_bias: convolutions have biases before a norm too.
        tower_init: initialiser of hidden convolutions, a name in ``jdet.nn.initialisers.INITIALISERS``;
            predictions are always "gaussian".
        points_gradient: share of the gradient of the two last convolutions that reaches the points.
        remat: what the backward pass computes again; the head is one segment, ``head``.
        dtype: of the computation; predictions are float32.
    """

    num_classes: int
    depth: int = 3
    channels: int = 256
    corner_channels: int = 64
    norm: Norm = Norm("none")
    prior: float = 0.01
    conv_bias: bool = False
    tower_init: str = "gaussian"
    points_gradient: float = 0.1
    remat: Remat = Remat()
    dtype: Any = jnp.float32

    @property
    def scale_invariant(self) -> tuple[str, ...]:
        """Kernels whose scale does not matter (``jdet.nn.observe``)."""
        if not self.norm.normalises or self.conv_bias:
            return ()
        towers = [f"{kind}{i}" for kind in ("cls", "box") for i in range(1, self.depth + 1)]
        parts = ("rows", "columns", "joined", "skip", "out")
        corners = [f"{corner}_{part}" for corner in CORNERS for part in parts]
        return tuple(f"{name}_conv/kernel" for name in (*towers, "shared", "embedding", *corners))

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array], *, train: bool) -> dict[str, list[jax.Array]]:
        """Predictions of all levels, float32.

        Args:
            levels: [B, h, w, C] each.
            train: use and update batch statistics.

        Returns:
            Lists with one array [B, h·w, …] per level: "initial" and "offsets" [18], the first and the
            refined points, y x in strides from the point of the grid; "logits" and "semantic" [K];
            "heat" [2], logits of top left and bottom right corners; "corners" [4], from the cell to its
            corner, x y of either in strides.
        """

        def head(module, levels):
            return module._predictions(levels, train)

        return self.remat.segment(head, "head")(self, list(levels))

    def _predictions(self, levels, train):
        layer = functools.partial(self._layer, train=train)
        cls = box = levels
        for i in range(1, self.depth + 1):
            cls, box = layer(cls, f"cls{i}"), layer(box, f"box{i}")
        shared = layer(box, "shared")
        unlikely = nn.initializers.constant(-math.log((1 - self.prior) / self.prior))
        semantic = self._predict(shared, "semantic", self.num_classes, 1, unlikely)
        embedding = layer(shared, "embedding", kernel_size=1)
        cls, box, shared = (_sums(x, embedding) for x in (cls, box, shared))

        heat, corners = [], []
        for corner in CORNERS:
            features = self._corner(shared, corner, layer)
            heat.append(self._predict(features, f"{corner}_heat", 1, 3, unlikely))
            corners.append(self._predict(features, f"{corner}_offset", 2, 3))
        heat, corners = (_joined(*parts) for parts in (heat, corners))
        both = _joined(heat, corners)

        points = layer(box, "initial", norm=Norm("none"))
        points = self._predict(points, "initial", 2 * POINTS, 1)
        logits = self._at_points(cls, both, points, "cls")
        logits = self._predict(logits, "cls", self.num_classes, 1, unlikely)
        refined = self._at_points(box, both, points, "refined")
        refined = self._predict(refined, "refined", 2 * POINTS, 1)
        outputs = {
            "initial": points,
            "offsets": [jax.lax.stop_gradient(x) + more for x, more in zip(points, refined)],
            "logits": logits,
            "semantic": semantic,
            "heat": heat,
            "corners": corners,
        }
        return {
            name: [x.reshape(x.shape[0], -1, x.shape[-1]) for x in maps]
            for name, maps in outputs.items()
        }

    def _layer(self, levels, name, channels=0, norm=None, **options):
        return conv_on_levels(
            levels,
            f"{name}_conv",
            f"{name}_norm",
            channels or self.channels,
            norm=norm or self.norm,
            bias=self.conv_bias,
            kernel_init=initialiser(self.tower_init, "model.tower_init"),
            dtype=self.dtype,
            **options,
        )

    def _corner(self, levels, corner, layer):
        """Corner pooling (CornerNet, Fig. 7) with a residual connection."""
        reverse, pooled = CORNERS[corner], []
        for part, axis in (("rows", ROWS), ("columns", COLUMNS)):
            maps = layer(levels, f"{corner}_{part}", self.corner_channels)
            # Zeros in the padding are below nothing that a ReLU puts out.
            pooled.append([running_max(cleared(x), axis, reverse) for x in maps])
        joined = layer(_sums(*pooled), f"{corner}_joined", relu=False)
        skip = layer(levels, f"{corner}_skip", kernel_size=1, relu=False)
        return layer([jax.nn.relu(x) for x in _sums(joined, skip)], f"{corner}_out", kernel_size=1)

    def _at_points(self, levels, corners, points, name):
        """Deformable convolution and ReLU of features [B, h, w, C] and predictions about corners."""
        conv = DeformConv(
            self.channels,
            kernel_init=initialiser(self.tower_init, "model.tower_init"),
            dtype=self.dtype,
            name=f"{name}_deform",
        )
        found = []
        for x, more, place in zip(levels, corners, points):
            place = place.reshape(*place.shape[:3], POINTS, 2)
            fixed = jax.lax.stop_gradient(place)
            place = fixed + self.points_gradient * (place - fixed)
            x = jnp.concatenate([x, more.astype(x.dtype)], axis=-1)
            found.append(jax.nn.relu(conv(x, place - regular_taps(3))))
        return found

    def _predict(self, levels, name, outputs, kernel_size, bias_init=nn.initializers.zeros):
        predict = Conv(
            outputs,
            kernel_size,
            use_bias=True,
            kernel_init=gaussian,
            bias_init=bias_init,
            dtype=self.dtype,
            name=name,
        )
        return [predict(x).astype(jnp.float32) for x in levels]


def _sums(*parts):
    """Sums of maps, level by level."""
    return [functools.reduce(jnp.add, maps) for maps in zip(*parts)]


def _joined(*parts):
    """Channels of maps one after the other, level by level."""
    return [jnp.concatenate(maps, axis=-1) for maps in zip(*parts)]
