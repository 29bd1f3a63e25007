"""Rematerialisation: which activations are kept for the backward pass, and which are computed again.

Sub-linear memory (Chen et al. 2016), by which MegDet fits 4 and more images on a device: the network is
divided into segments, the activations inside a segment are discarded after the forward pass and computed
again when the backward pass reaches it. Loss, gradients and running statistics do not change.
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
    """What is recomputed, and in which parts of the network.

    * ``none``: nothing.
    * ``convs``: norms, ReLUs and pools; the results of convolutions are kept. Costs little arithmetic.
    * ``full``: everything inside a segment; only its input is kept. One more forward pass.
    * ``stages``: as ``full``, with whole stages as segments where a stage has several (ResNets). Less is
      kept, but more memory is needed while a stage is recomputed.

    Statistics that norms have summed over devices are kept by all policies, so that recomputation adds no
    collective.

    Attributes:
        policy: one of ``POLICIES``.
        parts: parts of the network to which it applies, such as ``("stem", "c2")``; empty: all.
    """

    policy: str = "none"
    parts: tuple[str, ...] = ()

    def __post_init__(self):
        if self.policy not in POLICIES:
            raise ConfigError(
                f"train.remat={self.policy!r} does not exist; there are {', '.join(POLICIES)}"
            )

    def check(self, known: Sequence[str]) -> None:
        """Refuses settings that would have no effect.

        Args:
            known: parts of the network that can be recomputed.

        Raises:
            ConfigError: a part does not exist, or parts are given without a policy.
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
        """A function of (module, arrays) as one segment; unchanged if ``part`` is not recomputed.

        Submodules that the function creates belong to the module it is given.
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
