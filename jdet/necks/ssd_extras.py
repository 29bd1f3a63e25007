"""Extra levels above the backbone: SSD's (Liu et al. 2016) and ScratchDet's residual ones."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from jdet.nn.conv import caffe_xavier
from jdet.nn.conv_norm import ConvNorm
from jdet.nn.norm import Norm


def extra_sizes(size: int, valid_sizes: Sequence[int]) -> list[int]:
    """Map sizes of the levels above a backbone whose last map has ``size`` cells a side.

    Every level halves the map (3×3, stride 2, padding 1) until one cell is left, except that a map
    of one of ``valid_sizes`` cells is shrunk by a 3×3 without padding. At 300 pixels this gives
    10, 5, 3, 1 above a 19×19 map, as published.
    """
    sizes = []
    while size > 1:
        size = size - 2 if size in valid_sizes else -(-size // 2)
        sizes.append(size)
    return sizes


class SSDExtras(nn.Module):
    """1×1 and 3×3 convolution pairs, one pair a level, until the map is 1×1.

    The first pair after a stride-16 map has 256 and 512 channels, every other one 128 and 256.
    Maps of 5 and 3 cells are shrunk by a valid 3×3 (5 → 3 → 1), larger ones by stride 2.

    Attributes:
        taps: backbone stages that are levels themselves, finest first; the extras follow the last.
        norm: normalisation after every convolution.
        width: multiplies every channel count.
        kernel_init: of all convolutions.
        dtype: of activations.
    """

    taps: tuple[str, ...]
    norm: Norm = Norm("batch")
    width: float = 1.0
    kernel_init: Any = caffe_xavier
    dtype: Any = None

    def extra_sizes(self, size: int) -> list[int]:
        """Map sizes of the levels added above a last tap of ``size`` cells a side."""
        return extra_sizes(size, (5, 3))

    @nn.compact
    def __call__(self, stages: dict[str, jax.Array], *, train: bool) -> list[jax.Array]:
        """Named stages [B, h, w, C] to levels [B, h, w, C], finest first."""
        layer = functools.partial(
            ConvNorm, norm=self.norm, train=train, kernel_init=self.kernel_init, dtype=self.dtype
        )
        levels = [stages[tap] for tap in self.taps]
        first_wide = self.taps[-1] == "c4"
        for i, size in enumerate(self.extra_sizes(min(levels[-1].shape[1:3])), start=1):
            features = 512 if i == 1 and first_wide else 256
            x = levels[-1]
            valid = min(x.shape[1:3]) in (5, 3)
            x = layer(max(1, round(features * self.width / 2)), kernel_size=1, name=f"extra{i}_1")(
                x
            )
            x = layer(
                max(1, round(features * self.width)),
                strides=1 if valid else 2,
                padding=0 if valid else 1,
                name=f"extra{i}_2",
            )(x)
            assert min(x.shape[1:3]) == size
            levels.append(x)
        return levels


class ResidualExtras(nn.Module):
    """ScratchDet's extra levels: residual blocks of 128 channels, until the map is 1×1.

    Each block sums a strided 1×1 and a pair of 3×3 convolutions (Zhu et al. 2019, sec. 3.3). The
    paper's last level is 1×1, which a padded stride-2 block cannot make from 3×3; the last block's
    first 3×3 is therefore valid and its shortcut the 1×1 convolution of the centre cell (the
    released code leaves 5×5 or 3×3 there).

    Attributes:
        taps: backbone stages that are levels themselves, finest first; the extras follow the last.
        norm: normalisation after every convolution.
        width: multiplies every channel count.
        kernel_init: of all convolutions.
        dtype: of activations.
    """

    taps: tuple[str, ...]
    norm: Norm = Norm("batch")
    width: float = 1.0
    kernel_init: Any = caffe_xavier
    dtype: Any = None

    def extra_sizes(self, size: int) -> list[int]:
        """Map sizes of the levels added above a last tap of ``size`` cells a side."""
        return extra_sizes(size, (3,))

    @nn.compact
    def __call__(self, stages: dict[str, jax.Array], *, train: bool) -> list[jax.Array]:
        """Named stages [B, h, w, C] to levels [B, h, w, C], finest first."""
        layer = functools.partial(
            ConvNorm, norm=self.norm, train=train, kernel_init=self.kernel_init, dtype=self.dtype
        )
        levels = [stages[tap] for tap in self.taps]
        features = max(1, round(128 * self.width))
        for i, size in enumerate(self.extra_sizes(min(levels[-1].shape[1:3])), start=1):
            x = shortcut = levels[-1]
            strides, padding = 2, 1
            if min(x.shape[1:3]) == 3:
                shortcut, strides, padding = x[:, 1:-1, 1:-1], 1, 0
            shortcut = layer(
                features, kernel_size=1, strides=strides, relu=False, name=f"extra{i}_projection"
            )(shortcut)
            x = layer(features, strides=strides, padding=padding, name=f"extra{i}_1")(x)
            x = layer(features, relu=False, name=f"extra{i}_2")(x)
            x = jax.nn.relu(x + shortcut)
            assert min(x.shape[1:3]) == size
            levels.append(x)
        return levels
