"""What changes the weights of a run before its first step: a list of transforms with one signature.

They are applied in order, before the optimiser's state and the moving average exist. The first is that
of ``config.init_from`` where it names a run; others are arguments of ``jdet.train.loop.train``. A run that
is resumed has its weights from its checkpoint, and applies none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jdet.train.init import plan


class InitTransform(Protocol):
    """Maps initial parameters and statistics to others of the same shapes.

    One with an attribute ``loads`` that is False computes the weights from those it is given; any other may
    load them, so that what is frozen need not be at its initial values.
    """

    @property
    def name(self) -> str:
        """For messages and ``run.json``."""
        ...

    def __call__(self, params: Any, stats: Any) -> tuple[Any, Any]:
        """Changes the weights.

        Args:
            params: parameters, on every device of the mesh.
            stats: running statistics, likewise; empty where the model has none.

        Returns:
            Both, on the host or every device, the same on all processes.
        """

    def describe(self) -> str:
        """What it did, as text of a few lines; asked for after the call."""

    def record(self) -> Mapping[str, Any]:
        """The account for ``run.json``; asked for after the call."""


def announce(transforms: Sequence[InitTransform], seed: int) -> str:
    """What a new run says of its first weights, after the transforms were applied."""
    if not transforms:
        return f"starting from {summary([])}, seed {seed}"
    lines = [transform.describe() for transform in transforms]
    weights = summary(records(transforms))
    return "\n".join([*lines, f"starting with {weights}; all else as seed {seed} has it"])


def records(transforms: Sequence[InitTransform]) -> list[dict[str, Any]]:
    """The account of every transform for ``run.json``, with its name."""
    return [{"name": transform.name, **transform.record()} for transform in transforms]


def summary(recorded: Sequence[Mapping[str, Any]]) -> str:
    """What ``records`` gave in one line; of nothing, what a run without transforms has."""
    loaded = [each for each in recorded if each["name"] == plan.NAME]
    others = [each["name"] for each in recorded if each["name"] != plan.NAME]
    return ", then ".join([plan.summary(loaded[0] if loaded else None), *others])


def recorded_in(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The accounts that a ``run.json`` holds; earlier versions knew ``init_from`` alone."""
    if "init_transforms" in run:
        return run["init_transforms"]
    loaded = run.get("init_from")
    return [{"name": plan.NAME, **loaded}] if loaded else []
