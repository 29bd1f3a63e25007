"""A training set of which images with rare classes come more often."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from jdet.data import balance
from jdet.types import Example, Source

NAMED = 20
"""Classes whose factors are listed, rarest first."""


class Rebalanced:
    """A source with repeat factors (Gupta et al. 2019); everything else is the source's own.

    Args:
        source: the training set.
        threshold: share of images from which on a class is not repeated, ``data.repeat_threshold``.
    """

    def __init__(self, source: Source, threshold: float):
        self.class_names: tuple[str, ...] = source.class_names
        self._source, self._threshold = source, threshold

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        return self._source[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not there yet while it is unpickled
            raise AttributeError(name)
        return getattr(self._source, name)

    @functools.cached_property
    def occurrence(self) -> balance.Occurrence:
        """Classes of the set, read once."""
        return balance.occurrence(self._source)

    @functools.cached_property
    def repeat_factors(self) -> np.ndarray:
        """How often each image comes in an epoch on average, float64 [n]."""
        return balance.image_factors(self.occurrence, self._threshold)

    def describe_repeats(self) -> list[str]:
        """What an epoch becomes, and the factor of every class that has one, a line each."""
        found, factors = self.occurrence, balance.class_factors(self.occurrence, self._threshold)
        lines = [
            f"data.repeat_threshold={self._threshold:g}: an epoch has {balance.epoch_length(self)} images, "
            f"made of {len(self)} that come {self.repeat_factors.min():.3g} to "
            f"{self.repeat_factors.max():.3g} times"
        ]
        rare = [k for k in np.argsort(-factors, kind="stable").tolist() if factors[k] > 1]
        if not rare:
            return [f"{lines[0]}; no class is rarer than that"]
        named = (
            f"{self.class_names[k]} × {factors[k]:.3g} ({found.images[k]} images)"
            for k in rare[:NAMED]
        )
        more = f" and {len(rare) - NAMED} more" if len(rare) > NAMED else ""
        return [*lines, f"repeat factors of classes: {', '.join(named)}{more}; all others × 1"]
