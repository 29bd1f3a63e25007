"""Convolution, normalisation and ReLU in one module, of which all convolutional models are built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from jdet.nn.conv import Conv
from jdet.nn.initialisers import caffe_xavier
from jdet.nn.norm import Norm


class ConvNorm(nn.Module):
    """Convolution → norm → ReLU; the convolution has a bias only without a norm.

    Parameters are named ``conv`` and ``norm``.

    Attributes:
        features: output channels.
        norm: the normalisation.
        train: passed to the norm.
        kernel_size: side of the square kernel.
        strides: of both axes.
        padding: zeros on every side; None: as many as keep the size at stride 1.
        dilation: of the kernel.
        relu: end with a ReLU.
        norm_scale: initial scale of the norm.
        kernel_init: initialiser of the kernel.
        dtype: of the computation; None: of the input.
    """

    features: int
    norm: Norm
    train: bool
    kernel_size: int = 3
    strides: int = 1
    padding: int | None = None
    dilation: int = 1
    relu: bool = True
    norm_scale: float = 1.0
    kernel_init: Callable[..., Any] = caffe_xavier
    dtype: Any = None

    @property
    def scale_invariant(self) -> tuple[str, ...]:
        """Kernels whose scale does not matter (``jdet.nn.observe``)."""
        return ("conv/kernel",) if self.norm.normalises else ()

    @property
    def folds(self) -> tuple[tuple[str, str], ...]:
        """Norms that are the only reader of a convolution (``jdet.nn.fold``)."""
        return (("conv", "norm"),)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X [B, H, W, C] to [B, h, w, features]."""
        x = Conv(
            self.features,
            self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation,
            use_bias=self.norm.needs_bias,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name="conv",
        )(x)
        x = self.norm(train=self.train, name="norm", initial_scale=self.norm_scale)(x)
        return jax.nn.relu(x) if self.relu else x


class NormConv(nn.Module):
    """Norm → ReLU → convolution: the pre-activation order (He et al. 2016b; DenseNet, DSOD).

    The output is that of the convolution. It has a bias only without a norm; the ReLU is there either way.
    Parameters are named ``norm`` and ``conv``.

    Attributes:
        features: output channels.
        norm: the normalisation.
        train: passed to the norm.
        kernel_size: side of the square kernel.
        strides: of both axes.
        padding: zeros on every side; None: as many as keep the size at stride 1.
        kernel_init: initialiser of the kernel.
        dtype: of the computation; None: of the input.
    """

    features: int
    norm: Norm
    train: bool
    kernel_size: int = 3
    strides: int = 1
    padding: int | None = None
    kernel_init: Callable[..., Any] = caffe_xavier
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X [B, H, W, C] to [B, h, w, features]."""
        x = jax.nn.relu(self.norm(train=self.train, name="norm")(x))
        return Conv(
            self.features,
            self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            use_bias=self.norm.needs_bias,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name="conv",
        )(x)
