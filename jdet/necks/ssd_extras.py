"""Extra levels above the backbone: SSD's (Liu et al. 2016), ScratchDet's and DSSD's residual ones."""

from __future__ import annotations

import abc
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.nn.checked import Checked
from jdet.nn.conv import scale_channels
from jdet.nn.conv_norm import ConvNorm
from jdet.nn.initialisers import caffe_xavier
from jdet.nn.norm import Norm
from jdet.nn.remat import Remat
from jdet.nn.residual import BasicBlock, Bottleneck, PreactBlock, preact_parts


def extra_sizes(size: int, valid_sizes: Sequence[int]) -> list[int]:
    """Map sizes of the levels above a backbone whose last map has ``size`` cells a side.

    Every level halves the map (rounding up) until one cell is left, except that a map whose side is one of
    ``valid_sizes`` is shrunk by a 3×3 convolution without padding. At 300 pixels this gives 10, 5, 3, 1
    above a 19×19 map, as published.
    """
    sizes = []
    while size > 1:
        size = size - 2 if size in valid_sizes else -(-size // 2)
        sizes.append(size)
    return sizes


class Extras(Checked, abc.ABC):
    """Base of the extra levels: the taps are the first levels, the others are built one on the other.

    Attributes:
        taps: backbone stages that are levels themselves, finest first; the extra levels are built on the
            last, or on the stage ``end`` if the backbone has one.
        norm: normalisation of every convolution.
        width: multiplies every channel count.
        kernel_init: initialiser of all convolutions.
        dtype: of activations.
        remat: what the backward pass computes again; segments are the levels, all part of ``neck``.
        design_cells: side of the last tap's map in cells at the input size the layers are designed for.
            Inputs of other sizes get the same strides and padding; a level is omitted, with those above
            it, if the map below is too small for its layers. 0: the layers depend on the map they get.
    """

    taps: tuple[str, ...]
    norm: Norm = Norm("batch")
    width: float = 1.0
    kernel_init: Any = caffe_xavier
    dtype: Any = None
    remat: Remat = Remat()
    design_cells: int = 0

    remat_parts = ("neck",)

    @abc.abstractmethod
    def extra_sizes(self, size: int) -> list[int]:
        """Map sizes of the levels added above a last tap of ``size`` cells a side."""

    def smallest(self, i: int, below: int) -> int:
        """Smallest side, in cells, of the map below extra level ``i``; by design it is ``below``."""
        return 1

    @abc.abstractmethod
    def extend(
        self, x: jax.Array, i: int, below: int, layer: Any, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Builds extra level ``i`` (from 1): returns the map on which the next is built, and the level.

        The layers are those for a map with a side of ``below`` cells, whatever the size of ``x``.
        """

    def prepare(self, x: jax.Array, train: bool) -> jax.Array:
        """The map on which the first extra level is built."""
        return x

    def finish(self, levels: list[jax.Array], layer: Any) -> list[jax.Array]:
        """The levels that the neck returns."""
        return levels

    def scaled(self, channels: float) -> int:
        """A number of channels, scaled by ``width``."""
        return scale_channels(channels, self.width)

    @nn.compact
    def __call__(self, stages: dict[str, jax.Array], *, train: bool) -> list[jax.Array]:
        """Named stages [B, h, w, C] to levels [B, h, w, C], finest first."""
        layer = functools.partial(
            ConvNorm, norm=self.norm, train=train, kernel_init=self.kernel_init, dtype=self.dtype
        )
        levels = [stages[tap] for tap in self.taps]
        x = self.prepare(stages.get("end", levels[-1]), train)
        below = self.design_cells or min(x.shape[1:3])
        for i, size in enumerate(self.extra_sizes(below), start=1):
            if min(x.shape[1:3]) < self.smallest(i, below):
                break
            extend = functools.partial(_extend, i=i, below=below, layer=layer, train=train)
            x, level = self.remat.segment(extend, "neck")(self, x)
            levels.append(level)
            below = size
        return self.finish(levels, layer)


def _extend(neck: Extras, x: jax.Array, **settings: Any) -> tuple[jax.Array, jax.Array]:
    return neck.extend(x, **settings)


class SSDExtras(Extras):
    """Pairs of a 1×1 and a 3×3 convolution, one pair per level, until the map is 1×1.

    The first pair after a stride-16 map has 256 and 512 channels, every other one 128 and 256. Maps of
    5 and 3 cells are shrunk by a 3×3 without padding (SSD300: 19, 10, 5, 3, 1), a map of 2 by a padded 4×4
    (SSD512: 32, 16, 8, 4, 2, 1), all others by stride 2.

    Attributes:
        channels: of the levels, finest first, the last value for all further ones; the 1×1 convolution
            has half as many. Empty: 512 (after a stride-16 map), 256, ….
        pool_last: levels are halved down to 3 cells, and the last level is the average of those
            (SSD300S-ResNet-101).
        norm_first: norm and ReLU before the first pair, for backbones of pre-activation blocks.
    """

    channels: tuple[int, ...] = ()
    pool_last: bool = False
    norm_first: bool = False

    def extra_sizes(self, size: int) -> list[int]:
        """Map sizes of the levels added above a last tap of ``size`` cells a side."""
        return extra_sizes(size, (3,) if self.pool_last else (5, 3))

    def prepare(self, x: jax.Array, train: bool) -> jax.Array:
        """The last stage, with ``norm_first`` after norm and ReLU."""
        return jax.nn.relu(self.norm(train=train, name="norm")(x)) if self.norm_first else x

    def smallest(self, i: int, below: int) -> int:
        """Side of the window of the unpadded 3×3 or of the 4×4 convolution."""
        return 1 if self.pool_last else {5: 3, 3: 3, 2: 2}.get(below, 1)

    def extend(
        self, x: jax.Array, i: int, below: int, layer: Any, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """One more pair of convolutions."""
        if self.pool_last and below <= 3:
            x = jnp.mean(x.astype(jnp.float32), axis=(1, 2), keepdims=True).astype(x.dtype)
            return x, x
        channels = self.channels or ((512, 256) if self.taps[-1] == "c4" else (256,))
        features = channels[min(i, len(channels)) - 1]
        kernel, strides, padding = 3, 2, 1
        if below == 2 and not self.pool_last:
            kernel, strides = 4, 1
        elif below in (5, 3) and not self.pool_last:
            strides, padding = 1, 0
        x = layer(self.scaled(features / 2), kernel_size=1, name=f"extra{i}_1")(x)
        x = layer(
            self.scaled(features),
            kernel_size=kernel,
            strides=strides,
            padding=padding,
            name=f"extra{i}_2",
        )(x)
        return x, x


class ResidualExtras(Extras):
    """ScratchDet's extra levels: residual blocks of 128 channels (Zhu et al. 2019, sec. 3.3).

    The paper's last level is 1×1, which a padded stride-2 block cannot produce from 3×3. By default the
    first 3×3 of the last block is therefore not padded, and its shortcut is the 1×1 convolution of the
    centre cell; blocks follow until the map is 1×1. The released implementations differ:

    * "caffe": four blocks, of which the last two keep the size of the map (10, 5, 5, 5 at 300 pixels);
    * "mmdetection": four blocks, each of which halves a map above 3 cells (10, 5, 3, 3); a remaining map
      of 2 cells (512 pixels: 16, 8, 4, 2) is brought to 1×1 by a 3×3 and a 4×4 convolution.

    Attributes:
        release: "", "caffe" or "mmdetection".
        block: "post" or "preact", as in the backbone.
        tap: levels are the blocks' "output" or their "branch", as in the backbone.
    """

    release: str = ""
    block: str = "post"
    tap: str = "output"

    def __post_init__(self):
        super().__post_init__()
        for name, allowed in (
            ("release", ("", "caffe", "mmdetection")),
            ("block", ("post", "preact")),
            ("tap", ("output", "branch")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"model.neck.{name}={getattr(self, name)!r}; it can be one of {allowed}"
                )

    def extra_sizes(self, size: int) -> list[int]:
        """Map sizes of the levels added above a last tap of ``size`` cells a side."""
        if not self.release:
            return extra_sizes(size, (3,))
        sizes = []
        while len(sizes) < 4:
            size = -(-size // self._shrinks(len(sizes) + 1, size)[0])
            sizes.append(size)
        return [*sizes, 1] if self.release == "mmdetection" and size == 2 else sizes

    def _shrinks(self, i: int, size: int) -> tuple[int, bool]:
        """Stride of block ``i`` on a map of ``size`` cells, and whether its first 3×3 is not padded."""
        if self.release == "caffe":
            return (2 if i <= 2 else 1), False
        if self.release == "mmdetection":
            return (2 if size > 3 else 1), False
        return (1, True) if size == 3 else (2, False)

    def smallest(self, i: int, below: int) -> int:
        """Side of the window of the unpadded 3×3 or of the 4×4 convolution."""
        if self.release:
            return 2 if i == 5 else 1
        return 3 if below == 3 else 1

    def extend(
        self, x: jax.Array, i: int, below: int, layer: Any, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """One more block."""
        features = self.scaled(128)
        if self.release and i == 5:
            x = layer(features, name="extra5_1")(x)
            x = layer(features, kernel_size=4, padding=1, name="extra5_2")(x)
            return x, x
        strides, valid = self._shrinks(i, below)
        shape = dict(features=features, strides=strides, valid=valid, name=f"extra{i}")
        if self.block == "preact":
            parts = preact_parts(self.norm, train, self.kernel_init, self.dtype)
            x, branch = PreactBlock(**parts, **shape)(x)
        else:
            x, branch = BasicBlock(layer, **shape)(x)
        return x, branch if self.tap == "branch" else x


class BottleneckExtras(Extras):
    """Extra levels of SSD321 (Fu et al. 2017, DSSD, sec. 3.2; the released code), until the map is 1×1.

    Bottlenecks of 256, 256 and 1024 channels whose first convolution and shortcut are not padded: 2×2
    of stride 2, or 3×3 on maps of 5 and 3 cells (20, 10, 5, 3, 1).

    Attributes:
        prediction_module: one more such bottleneck with 1×1 convolutions on every level; the head predicts
            from its output alone (DSSD, Fig. 2c).
    """

    prediction_module: bool = True

    def extra_sizes(self, size: int) -> list[int]:
        """Map sizes of the levels added above a last tap of ``size`` cells a side."""
        sizes = []
        while size > 1:
            size = size - 2 if size in (5, 3) else size // 2
            sizes.append(size)
        return sizes

    def smallest(self, i: int, below: int) -> int:
        """Side of the window of the first convolution."""
        return 3 if below in (5, 3) else 2

    def extend(
        self, x: jax.Array, i: int, below: int, layer: Any, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """One more bottleneck."""
        valid = below in (5, 3)
        kernel_size, strides = (3, 1) if valid else (2, 2)
        x, _ = Bottleneck(
            layer,
            self.scaled(1024),
            strides=strides,
            stride_first=True,
            kernel_size=kernel_size,
            name=f"extra{i}",
        )(x)
        return x, x

    def finish(self, levels: list[jax.Array], layer: Any) -> list[jax.Array]:
        """The levels themselves, or the outputs of the prediction modules."""
        if not self.prediction_module:
            return levels
        return [
            Bottleneck(layer, self.scaled(1024), project=True, name=f"prediction{i}")(x)[0]
            for i, x in enumerate(levels)
        ]
