"""The base of sources whose objects lie in flat arrays: images and objects by index."""

from __future__ import annotations

import abc
import functools
import os
from collections import Counter
from typing import Any

import numpy as np

from jdet.data.readers.file_pattern import derived
from jdet.data.readers.settings import ImageSettings
from jdet.data.readers.survey import Survey, survey
from jdet.data.sources.annotations import Defect, LabelTable
from jdet.types import Example, ImageKind, OfficialObjects


class LabelledSource(abc.ABC):
    """A source whose objects lie in a ``LabelTable``; subclasses say where the images are.

    Attributes:
        name: what is read, for ``describe`` and for messages.
        class_names: label → name.
        image_settings: what the config says of the images.
        has_masks: objects have ``Example.masks``.
    """

    name: str
    class_names: tuple[str, ...]
    image_settings: ImageSettings = ImageSettings()
    has_masks: bool = False
    _table: LabelTable
    _masks: Any = None  # LabelMasks of jdet.data.sources.label_masks
    _images: tuple[str | tuple[str, ...], ...] = ()

    @abc.abstractmethod
    def _image(self, index: int) -> str | tuple[str, ...] | bytes | np.ndarray:
        """Where image ``index`` (0 … n-1) is: its path or paths, its encoded bytes, or the pixels."""

    @functools.cached_property
    def image_survey(self) -> Survey:
        """What the images are, found out when it is first asked for."""
        files = bool(self._images)
        return survey(len(self), self._image, self.image_settings, files=files)

    @property
    def image_kind(self) -> ImageKind:
        """What the images are."""
        return self.image_survey.kind

    @property
    def defects(self) -> list[Defect]:
        """Every box dropped or clipped and every image skipped, in reading order."""
        return self._table.defects

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of all images, as in ``Example.id``."""
        return self._table.ids

    @property
    def image_paths(self) -> tuple[str, ...]:
        """Where all images are, the first file of each; empty where they are no files."""
        return tuple(i if isinstance(i, str) else i[0] for i in self._images)

    @property
    def file_pattern(self) -> str:
        """How the files of an image are called; "" where each is one, or the names have no pattern."""
        if self.image_settings.files or isinstance(next(iter(self._images), ""), str):
            return self.image_settings.files
        names = [tuple(map(os.path.basename, files)) for files in self._images]
        return derived(names)

    def __len__(self) -> int:
        return len(self._table.ids)

    def __getitem__(self, index: int) -> Example:
        index = self._position(index)
        table = self._table
        rows = slice(*table.offsets[index : index + 2])
        every = slice(*table.official_offsets[index : index + 2])
        example = Example(
            id=table.ids[index],
            image=self._image(index),
            boxes=table.boxes[rows].copy(),
            labels=table.labels[rows].copy(),
            ignore=table.ignore[rows].copy(),
            areas=table.areas[rows].copy(),
            official=OfficialObjects(
                xywh=table.official.xywh[every].copy(),
                labels=table.official.labels[every].copy(),
                ignore=table.official.ignore[every].copy(),
                areas=table.official.areas[every].copy(),
                rank=int(table.ranks[index]),
            ),
        )
        return example if self._masks is None else self._masks.added(example, every)

    def _position(self, index: int) -> int:
        n = len(self)
        if not -n <= index < n:
            raise IndexError(f"{self.name}: image {index} of {n}")
        return int(index) % n

    def image_size(self, index: int) -> tuple[int, int]:
        """Height and width of the original image, without opening it."""
        height, width = self._table.sizes[self._position(index)].tolist()
        return height, width

    def class_counts(self) -> np.ndarray:
        """int64 [K], objects of each class, ignored ones included."""
        return np.bincount(self._table.labels, minlength=len(self.class_names))

    def describe(self) -> str:
        """One line: images, objects, objects per class, ignored objects, defects."""
        counts = zip(self.class_names, self.class_counts().tolist(), strict=True)
        per_class = ", ".join(f"{name} {count}" for name, count in counts)
        line = f"{self.name}: {len(self)} images, {len(self._table.labels)} objects ({per_class})"
        if ignored := int(self._table.ignore.sum()):
            line += f", {ignored} of them ignored in evaluation"
        kinds = Counter(defect.what for defect in self.defects)
        listed = ", ".join(f"{n} {what}" for what, n in sorted(kinds.items()))
        return f"{line}; defects: {listed or 'none'}"
