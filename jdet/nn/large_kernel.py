"""Large kernels at the price of small ones (Peng et al. 2017, "Large Kernel Matters", sec. 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.nn.norm import Norm
from jdet.nn.padding import cleared
from jdet.ops.vma import match_varying


class LargeKernel(nn.Module):
    """A k×k kernel of low rank: a k×1 after a 1×k convolution and a 1×k after a k×1, added up.

    There are no activations. From C to N channels it has 2·k·(C + N)·N weights instead of k²·C·N. Then
    follows the norm, or without one a bias.

    Attributes:
        features: output channels, N.
        kernel_size: k, odd.
        norm: of the sum.
        train: passed to the norm.
        kernel_init: initialiser of the four kernels.
        dtype: of the computation; None: of the input.
    """

    features: int
    kernel_size: int
    norm: Norm
    train: bool
    kernel_init: Callable[..., Any]
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X [B, H, W, C] to [B, H, W, features]."""
        x = x.astype(self.dtype or x.dtype)
        row, column = (1, self.kernel_size), (self.kernel_size, 1)
        y = self._line(self._line(x, row, "row1"), column, "column2")
        y = y + self._line(self._line(x, column, "column1"), row, "row2")
        if self.norm.needs_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(y.dtype)
        return self.norm(train=self.train, name="norm")(y)

    def _line(self, x, size, name):
        """A convolution with a kernel of one row or one column."""
        shape = (*size, x.shape[-1], self.features)
        kernel = self.param(name, self.kernel_init, shape, jnp.float32).astype(x.dtype)
        return jax.lax.conv_general_dilated(
            cleared(x),
            match_varying(x, kernel),
            (1, 1),
            [(side // 2, side // 2) for side in size],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
