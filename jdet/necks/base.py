"""What necks that make a pyramid of one width share: their fields, their convolutions, one segment."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax

from jdet.nn.checked import Checked
from jdet.nn.conv import scale_channels
from jdet.nn.conv_norm import ConvNorm
from jdet.nn.initialisers import initialiser
from jdet.nn.norm import Norm
from jdet.nn.remat import Remat


class PyramidNeck(Checked):
    """A neck whose levels all have ``channels`` channels; a subclass has ``pyramid`` and ``extra_sizes``.

    Attributes:
        taps: backbone stages that enter, finest first.
        channels: of every level.
        norm: the model's norm.
        width: multiplies ``channels``.
        remat: what the backward pass computes again; the neck is one segment, ``neck``.
        kernel_init: initialiser of all convolutions: a name in ``jdet.nn.initialisers.INITIALISERS`` or a
            function.
        dtype: of activations.
    """

    taps: tuple[str, ...]
    channels: int = 256
    norm: Norm = Norm("batch")
    width: float = 1.0
    remat: Remat = Remat()
    kernel_init: Any = "xavier"
    dtype: Any = None

    remat_parts = ("neck",)

    def __post_init__(self):
        super().__post_init__()
        initialiser(self.kernel_init, "model.neck.kernel_init")

    @nn.compact
    def __call__(self, stages: dict[str, jax.Array], *, train: bool) -> list[jax.Array]:
        """Named stages [B, h, w, C] to levels [B, h, w, channels], finest first."""

        def neck(module, stages):
            return module.pyramid(stages, train)

        taken = {tap: stages[tap] for tap in self.taps}
        return self.remat.segment(neck, "neck")(self, taken)

    def pyramid(self, stages: dict[str, jax.Array], train: bool) -> list[jax.Array]:
        """The levels, in the scope of ``__call__``."""
        raise NotImplementedError

    def convolution(self, norm: Norm, train: bool) -> functools.partial[ConvNorm]:
        """A convolution with its norm, without an activation, of which the caller gives the rest."""
        return functools.partial(
            ConvNorm,
            norm=norm,
            train=train,
            relu=False,
            kernel_init=initialiser(self.kernel_init, "model.neck.kernel_init"),
            dtype=self.dtype,
        )

    @property
    def features(self) -> int:
        """Channels of a level, width counted."""
        return scale_channels(self.channels, self.width)


def check_halving(taps: tuple[str, ...]) -> None:
    """Raises ValueError where a stage ``cN`` has not twice the stride of the one before it."""
    strides = [int(tap[1:]) for tap in taps]
    if strides != list(range(strides[0], strides[0] + len(strides))):
        raise ValueError(
            f"model.taps={tuple(taps)}: the neck pools each level to the size of the next, whose stage "
            "must have twice its stride"
        )
