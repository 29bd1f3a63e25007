"""Rematerialisation: which activations wait for the backward pass, and which are computed again.

Sub-linear memory (Chen et al. 2016), with which MegDet fits 4 and more images on a device: the network
is cut into segments, what a segment makes inside is thrown away after the forward pass and made again
when the backward pass comes to it. Loss, gradients and running statistics stay what they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn

from jdet.types import ConfigError

POLICIES = ("none", "convs", "full", "stages")


@dataclasses.dataclass(frozen=True)
class Remat:
    """What is recomputed, and where.

    * ``none``: nothing.
    * ``convs``: norms, ReLUs and pools; the results of convolutions are kept. Nearly free of arithmetic.
    * ``full``: everything inside a segment; only its input is kept. One more forward pass.
    * ``stages``: the same with longer segments where a stage has several (ResNets). Less is kept, but
      more is needed while a stage is recomputed.

    Statistics that norms have summed over devices are kept under all of them, so that recomputing brings
    no second collective.

    Attributes:
        policy: one of ``POLICIES``.
        parts: of the network that it holds for, such as ``("stem", "c2")``; empty: all.
    """

    policy: str = "none"
    parts: tuple[str, ...] = ()

    def __post_init__(self):
        if self.policy not in POLICIES:
            raise ConfigError(
                f"train.remat={self.policy!r} does not exist; there are {', '.join(POLICIES)}"
            )

    def check(self, known: Sequence[str]) -> None:
        """Refuses what would change nothing.

        Args:
            known: parts of the network that can be recomputed.

        Raises:
            ConfigError: a part that is not there, or parts without a policy.
        """
        for part in self.parts:
            if part not in known:
                raise ConfigError(
                    f"train.remat_parts names {part!r}; this network has {', '.join(known) or 'none'}"
                )
        if self.parts and self.policy == "none":
            raise ConfigError(
                f"train.remat_parts={self.parts} needs a policy; set train.remat to one of "
                f"{', '.join(POLICIES[1:])}"
            )
        if self.policy != "none" and not known:
            raise ConfigError(
                f"train.remat={self.policy!r}, but neither backbone, neck nor head can be recomputed; "
                "take train.remat=none"
            )

    def segment(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """A function of (module, arrays) as one segment, or as it is where ``part`` is kept.

        Submodules that the function makes belong to the module it is given.
        """
        if self.policy == "none" or (self.parts and part not in self.parts):
            return function
        kept = _KEPT + _CONVOLUTIONS if self.policy == "convs" else _KEPT
        return nn.remat(function, policy=_Keep(kept))

    @property
    def whole_stages(self) -> bool:
        """Whether a stage is one segment rather than one for each of its blocks."""
        return self.policy == "stages"


_KEPT = ("psum", "psum_invariant", "all_gather", "all_gather_invariant")
_CONVOLUTIONS = ("conv_general_dilated", "dot_general")


@dataclasses.dataclass(frozen=True)
class _Keep:
    """A policy as ``jax.checkpoint`` takes it: keep the results of these primitives."""

    primitives: tuple[str, ...]

    def __call__(self, primitive: Any, *_: Any, **__: Any) -> bool:
        return primitive.name in self.primitives
