"""Holds out a part of a data set for evaluation where it has no split of its own."""

from __future__ import annotations

import hashlib

from jdet.data.sources.part import Part
from jdet.types import DataError, Source


class Holdout(Part):
    """One side of a split that depends on the images' names alone.

    About one image in ``every`` is held out. An image stays on its side when others are added
    to the set or removed. Attributes are those of ``Part``.

    Args:
        source: the whole set.
        every: 2 or more.
        held_out: this is the side held out (True) or the rest (False).

    Raises:
        DataError: one of the sides would be empty.
    """

    def __init__(self, source: Source, every: int, held_out: bool):
        super().__init__(source, _Side(every, held_out))
        if len(self) in (0, len(source)):
            raise DataError(
                f"config.data.holdout={every} leaves one side of {len(source)} images empty; "
                "make a split of your own"
            )


class _Side:
    """Whether an image of a name lies on a side."""

    def __init__(self, every: int, held_out: bool):
        self._every, self._held_out = every, held_out

    def __call__(self, name: str) -> bool:
        number = int.from_bytes(hashlib.md5(name.encode()).digest()[:4], "big")
        return (number % self._every == 0) == self._held_out
