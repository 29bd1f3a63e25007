"""Residual blocks: basic and bottleneck, post- and pre-activation (He et al. 2016a, 2016b).

Every block returns its output and its branch, the result of the last convolution before the addition, from
which some detectors predict.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax

from jdet.nn.conv import Conv
from jdet.nn.norm import Norm


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut (He et al. 2016a, Fig. 2; post-activation).

    Attributes:
        layer: ConvNorm with norm, train and dtype bound.
        features: output channels.
        strides: of the first convolution and of the projection.
        dilation: of both convolutions.
        valid: the first convolution is not padded, and the shortcut projects the map without its border.
        last_scale: initial scale of the last norm.
    """

    layer: Any
    features: int
    strides: int = 1
    dilation: int = 1
    valid: bool = False
    last_scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """X [B, H, W, C] to output and branch, [B, h, w, features] each."""
        shortcut = x[:, 1:-1, 1:-1] if self.valid else x
        if self.valid or self.strides != 1 or x.shape[-1] != self.features:
            shortcut = self.layer(
                self.features, kernel_size=1, strides=self.strides, relu=False, name="projection"
            )(shortcut)
        padding = 0 if self.valid else None
        dilation = self.dilation
        x = self.layer(
            self.features, strides=self.strides, padding=padding, dilation=dilation, name="conv1"
        )(x)
        last = dict(relu=False, norm_scale=self.last_scale)
        x = self.layer(self.features, dilation=dilation, name="conv2", **last)(x)
        return jax.nn.relu(x + shortcut), x


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution around a shortcut (He et al. 2016a, Fig. 5; post-activation).

    Attributes:
        layer: ConvNorm with norm, train and dtype bound.
        features: output channels; the inner convolutions have a quarter.
        strides: of the block.
        dilation: of the 3×3 convolution.
        stride_first: the first convolution strides (He et al., Caffe) rather than the 3×3 one.
        kernel_size: of the first convolution and of the projection, which are not padded (DSSD's extra
            levels have 2 and 3).
        project: project the shortcut even if shapes agree.
        last_scale: initial scale of the last norm.
    """

    layer: Any
    features: int
    strides: int = 1
    dilation: int = 1
    stride_first: bool = False
    kernel_size: int = 1
    project: bool = False
    last_scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """X [B, H, W, C] to output and branch, [B, h, w, features] each."""
        inner = max(1, self.features // 4)
        first, second = (self.strides, 1) if self.stride_first else (1, self.strides)
        edge = dict(kernel_size=self.kernel_size, padding=0)
        shortcut = x
        changes = self.strides != 1 or self.kernel_size != 1 or x.shape[-1] != self.features
        if changes or self.project:
            shortcut = self.layer(
                self.features, strides=self.strides, relu=False, name="projection", **edge
            )(x)
        x = self.layer(inner, strides=first, name="conv1", **edge)(x)
        x = self.layer(inner, strides=second, dilation=self.dilation, name="conv2")(x)
        last = dict(relu=False, norm_scale=self.last_scale)
        x = self.layer(self.features, kernel_size=1, name="conv3", **last)(x)
        return jax.nn.relu(x + shortcut), x


def preact_parts(norm: Norm, train: bool, kernel_init: Any, dtype: Any) -> dict[str, Any]:
    """The fields ``conv`` and ``norm`` of a `PreactBlock`."""
    conv = functools.partial(Conv, use_bias=norm.needs_bias, kernel_init=kernel_init, dtype=dtype)
    return dict(conv=conv, norm=functools.partial(norm, train=train))


class PreactBlock(nn.Module):
    """Norm and ReLU before each convolution, none after the addition (He et al. 2016b, Fig. 1b).

    The projection, if there is one, takes the normalised input and has no norm itself, as in the Caffe
    release of ScratchDet.

    Attributes:
        conv: Conv with bias, initialiser and dtype bound.
        norm: Norm with train bound.
        features: output channels.
        strides: of the block: first 3×3 convolution and projection.
        dilation: of the 3×3 convolutions.
        bottleneck: 1×1 (a quarter of the channels), 3×3, 1×1 rather than two 3×3 convolutions.
        stride_first: in a bottleneck the first 1×1 strides rather than the 3×3.
        valid: the first 3×3 of a basic block is not padded, and the shortcut projects the map without its
            border.
        norm_input: norm and ReLU before the first convolution too; False: it takes the input as it is.
    """

    conv: Any
    norm: Any
    features: int
    strides: int = 1
    dilation: int = 1
    bottleneck: bool = False
    stride_first: bool = False
    valid: bool = False
    norm_input: bool = True

    @property
    def folds(self) -> tuple[tuple[str, str], ...]:
        """Norms that are the only reader of a convolution (``jdet.nn.fold``)."""
        return (("conv1", "norm2"), ("conv2", "norm3"))[: 1 + self.bottleneck]

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """X [B, H, W, C] to output and branch, [B, h, w, features] each."""
        y = jax.nn.relu(self.norm(name="norm1")(x)) if self.norm_input else x
        shortcut = x
        if self.valid or self.strides != 1 or x.shape[-1] != self.features:
            shortcut = y[:, 1:-1, 1:-1] if self.valid else y
            shortcut = self.conv(self.features, 1, strides=self.strides, name="projection")(
                shortcut
            )
        if self.bottleneck:
            inner = max(1, self.features // 4)
            first, second = (self.strides, 1) if self.stride_first else (1, self.strides)
            y = self.conv(inner, 1, strides=first, name="conv1")(y)
            y = jax.nn.relu(self.norm(name="norm2")(y))
            y = self.conv(inner, strides=second, dilation=self.dilation, name="conv2")(y)
            y = jax.nn.relu(self.norm(name="norm3")(y))
            y = self.conv(self.features, 1, name="conv3")(y)
        else:
            padding = 0 if self.valid else None
            y = self.conv(
                self.features,
                strides=self.strides,
                padding=padding,
                dilation=self.dilation,
                name="conv1",
            )(y)
            y = jax.nn.relu(self.norm(name="norm2")(y))
            y = self.conv(self.features, dilation=self.dilation, name="conv2")(y)
        return y + shortcut, y
