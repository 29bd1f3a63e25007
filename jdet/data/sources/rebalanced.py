"""A training set of which images with rare classes, and large ones that are cut, come more often."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from jdet.data import balance
from jdet.data.batching import image_size
from jdet.types import DataError, Example, Source

NAMED = 20
"""Classes whose factors are listed, rarest first."""


class Rebalanced:
    """A source with repeat factors (Gupta et al. 2019); everything else is the source's own.

    Args:
        source: the training set.
        threshold: share of images from which on a class is not repeated, ``data.repeat_threshold``; 0: none
            is.
        side: of the tiles that training cuts out of images (``data.tile.side``): an image comes as often as
            a grid has tiles of it, besides; 0: there are none.
    """

    def __init__(self, source: Source, threshold: float, side: int = 0):
        self.class_names: tuple[str, ...] = source.class_names
        self._source, self._threshold, self._side = source, threshold, side

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
        factors = np.ones(len(self))
        if self._threshold:
            factors = balance.image_factors(self.occurrence, self._threshold)
        return factors * self._tiles if self._side else factors

    @functools.cached_property
    def _tiles(self) -> np.ndarray:
        """Tiles of each image in a grid; one of those that cannot be read."""
        counts = np.ones(len(self))
        for index in range(len(self)):
            try:
                counts[index] = np.prod(-(-np.array(image_size(self._source, index)) // self._side))
            except DataError:
                continue
        return counts

    def describe_repeats(self) -> list[str]:
        """What an epoch becomes, and the factor of every class that has one, a line each."""
        what = f"tiles of {self._side} pixels" if self._side else "images"
        lines = [
            f"an epoch has {balance.epoch_length(self)} {what}, of {len(self)} images that come "
            f"{self.repeat_factors.min():.3g} to {self.repeat_factors.max():.3g} times"
        ]
        if not self._threshold:
            return lines
        lines[0] = f"data.repeat_threshold={self._threshold:g}: {lines[0]}"
        found, factors = self.occurrence, balance.class_factors(self.occurrence, self._threshold)
        rare = [k for k in np.argsort(-factors, kind="stable").tolist() if factors[k] > 1]
        if not rare:
            return [f"{lines[0]}; no class is rarer than that"]
        named = (
            f"{self.class_names[k]} × {factors[k]:.3g} ({found.images[k]} images)"
            for k in rare[:NAMED]
        )
        more = f" and {len(rare) - NAMED} more" if len(rare) > NAMED else ""
        return [*lines, f"repeat factors of classes: {', '.join(named)}{more}; all others × 1"]
