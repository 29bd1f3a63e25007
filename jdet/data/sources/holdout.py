"""Holds out a part of a data set for evaluation where it has no split of its own."""

from __future__ import annotations

import hashlib

from jdet.data.readers.settings import ImageSettings
from jdet.data.readers.survey import Survey
from jdet.data.sources.annotations import Defect
from jdet.types import DataError, Example, ImageKind, Source


class Holdout:
    """One side of a split that depends on the images' names alone.

    About one image in ``every`` is held out. An image stays on its side when others are added
    to the set or removed.

    Attributes:
        class_names: of the source.
        category_ids: of the source; empty where it has none.
        has_masks: of the source; not there where the source does not say.
        image_settings: of the source.
        file_pattern: of the source; "" where it has none.
        image_ids: of the source, for the images of this side; empty where it has none.

    Args:
        source: the whole set.
        every: 2 or more.
        held_out: this is the side held out (True) or the rest (False).

    Raises:
        DataError: one of the sides would be empty.
    """

    def __init__(self, source: Source, every: int, held_out: bool):
        self.class_names = source.class_names
        self.category_ids = tuple(getattr(source, "category_ids", ()))
        if hasattr(source, "has_masks"):
            self.has_masks = source.has_masks
        self.image_settings = getattr(source, "image_settings", ImageSettings())
        self.file_pattern = getattr(source, "file_pattern", "")
        self._source, self._every, self._held_out = source, every, held_out
        ids = getattr(source, "ids", None) or (source[i].id for i in range(len(source)))
        sides = [_hash(id) % every == 0 for id in ids]
        if all(sides) or not any(sides):
            raise DataError(
                f"config.data.holdout={every} leaves one side of {len(source)} images empty; "
                "make a split of your own"
            )
        self._index = [i for i, side in enumerate(sides) if side == held_out]
        image_ids = getattr(source, "image_ids", ())
        self.image_ids = tuple(image_ids[i] for i in self._index) if image_ids else ()

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Example:
        return self._source[self._index[index]]

    @property
    def image_survey(self) -> Survey | None:
        """Of the whole source; None where it has none."""
        return getattr(self._source, "image_survey", None)

    @property
    def image_kind(self) -> ImageKind:
        """What the images of the whole source are, so that both sides agree."""
        return ImageKind.of(self._source)

    def image_size(self, index: int) -> tuple[int, int] | None:
        """Height and width of the original image; None where the source does not know it."""
        size = getattr(self._source, "image_size", None)
        return size(self._index[index]) if size else None

    @property
    def defects(self) -> list[Defect]:
        """Those of the source that belong to this side, images it skipped included."""
        return [
            defect
            for defect in getattr(self._source, "defects", ())
            if (_hash(defect.id) % self._every == 0) == self._held_out
        ]

    def describe(self) -> str:
        """One line: how many images of which source."""
        source = self._source
        whole = source.describe() if hasattr(source, "describe") else type(source).__name__
        return f"{len(self)} of {len(source)} images, split by name, of {whole}"


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.md5(name.encode()).digest()[:4], "big")
