"""Feature pyramid network (Lin et al. 2017a) with the extra levels of the detectors built on it."""

from __future__ import annotations

import functools

import jax

from jdet.necks.base import PyramidNeck
from jdet.nn.initialisers import initialiser
from jdet.nn.large_kernel import LargeKernel
from jdet.nn.norm import Norm
from jdet.nn.repeat import repeat_to

EXTRAS = {"none": 0, "pool": 1, "conv_c5": 2, "conv_p5": 2}
"""Number of levels above the last tap, by kind."""


class FPN(PyramidNeck):
    """Turns every tap into a level of ``channels`` channels, with the maps above added to it.

    A 1×1 convolution brings a tap to the pyramid's width, the sum of the level above is enlarged to the
    tap's size (nearest neighbour) and added, and a 3×3 convolution of this sum is the level. There are no
    activations.

    Attributes:
        extra: levels above the last tap. "none"; "pool": every second pixel of the last level (Lin et
            al. 2017a, for the RPN); "conv_c5": two levels by 3×3 convolutions of stride 2, the first
            on the last stage of the backbone (RetinaNet); "conv_p5": the first on the last level.
        extra_relu: a ReLU between these two convolutions (RetinaNet as published, Detectron2 and
            torchvision; MMDetection has none).
        use_norm: every convolution is followed by the model's norm and has no bias.
        lateral_kernel: k, odd: above 1 a tap is brought to the pyramid's width by large separable kernels
            instead, k×1 after 1×k and 1×k after k×1, added up (Peng et al. 2017, "Large Kernel Matters").
    """

    extra: str = "conv_c5"
    extra_relu: bool = False
    use_norm: bool = False
    lateral_kernel: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.extra not in EXTRAS:
            raise ValueError(
                f"model.neck.extra={self.extra!r}; it can be one of {', '.join(EXTRAS)}"
            )
        if self.lateral_kernel % 2 == 0:
            raise ValueError(
                f"model.neck.lateral_kernel={self.lateral_kernel}; it must be odd, such as "
                f"{self.lateral_kernel + 1}"
            )

    def extra_sizes(self, size: int) -> list[int]:
        """Map sizes of the levels added above a last tap of ``size`` cells a side."""
        sizes = []
        for _ in range(EXTRAS[self.extra]):
            size = -(-size // 2)
            sizes.append(size)
        return sizes

    def pyramid(self, stages: dict[str, jax.Array], train: bool) -> list[jax.Array]:
        """As in ``PyramidNeck``."""
        norm = self.norm if self.use_norm else Norm("none")
        layer = functools.partial(self.convolution(norm, train), self.features)
        lateral = functools.partial(layer, kernel_size=1)
        if self.lateral_kernel > 1:
            init = initialiser(self.kernel_init, "model.neck.kernel_init")
            fields = dict(norm=norm, train=train, kernel_init=init, dtype=self.dtype)
            lateral = functools.partial(LargeKernel, self.features, self.lateral_kernel, **fields)
        levels, joined = [], None
        for tap in reversed(self.taps):
            x = lateral(name=f"lateral_{tap}")(stages[tap])
            joined = x if joined is None else x + repeat_to(joined, x.shape[1], x.shape[2])
            levels.insert(0, layer(name=f"output_{tap}")(joined))
        if self.extra == "pool":
            levels.append(levels[-1][:, ::2, ::2])
        elif self.extra != "none":
            below = stages[self.taps[-1]] if self.extra == "conv_c5" else levels[-1]
            levels.append(layer(strides=2, padding=1, name="extra1")(below))
            below = jax.nn.relu(levels[-1]) if self.extra_relu else levels[-1]
            levels.append(layer(strides=2, padding=1, name="extra2")(below))
        return levels
