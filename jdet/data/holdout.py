"""Keeps a part of a data set for evaluation where its author made no split."""

from __future__ import annotations

import hashlib

from jdet.types import DataError, Example, Source


class Holdout:
    """One side of a split that depends on the pictures' names alone.

    About one picture in ``every`` is held out. A picture stays on its side when others are added
    to the set or removed.

    Args:
        source: the whole set.
        every: 2 or more.
        held_out: this is the side held out (True) or the rest (False).

    Raises:
        DataError: one of the sides would be empty.
    """

    def __init__(self, source: Source, every: int, held_out: bool):
        self.class_names = source.class_names
        self._source = source
        sides = [_hash(source[i].id) % every == 0 for i in range(len(source))]
        if all(sides) or not any(sides):
            raise DataError(
                f"config.data.holdout={every} leaves one side of {len(source)} pictures empty; "
                "make a split of your own"
            )
        self._index = [i for i, side in enumerate(sides) if side == held_out]

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Example:
        return self._source[self._index[index]]

    def describe(self) -> str:
        """One line for the print at the start."""
        return f"{len(self)} of {len(self._source)} pictures, split by name"


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.md5(name.encode()).digest()[:4], "big")
