"""One image of a source, decoded and held against its labels, or why it cannot be used."""

from __future__ import annotations

import dataclasses

import numpy as np

from jdet.data.image_io import check_size, read_image
from jdet.data.invalid import filled
from jdet.data.transforms.element import Element
from jdet.data.transforms.intensity import ImageValues
from jdet.types import DataError, Source


@dataclasses.dataclass(frozen=True)
class Reader:
    """The source with decoded images, followed by padding up to ``padded`` elements.

    Attributes:
        source: where the examples come from.
        count: images of it.
        on_error: "raise", or "skip": an image that cannot be used has no pixels and a ``problem``.
        padded: elements in all, where that is more.
        values: what the values of images mean; those that were not measured become neutral. None: images
            are as they are stored.
    """

    source: Source
    count: int
    on_error: str
    padded: int = 0
    values: ImageValues | None = None

    def __len__(self) -> int:
        return max(self.count, self.padded)

    def __getitem__(self, index: int) -> Element:
        if index >= self.count:
            return Element()
        name = f"image {index} of {type(self.source).__name__}"
        try:
            example = self.source[index]
            name = example.id
            image = read_image(example.image, name="" if isinstance(example.image, str) else name)
            if not isinstance(example.image, np.ndarray) and hasattr(self.source, "image_size"):
                path = example.image if isinstance(example.image, str) else name
                check_size(image, self.source.image_size(index), path)
            if self.values is not None:
                image = filled(image, self.values.invalid, self.values.neutral)
        except DataError as error:
            if self.on_error == "raise":
                raise
            return Element(index=index, id=name, problem=str(error))
        return Element(
            index=index,
            id=name,
            image=image,
            boxes=example.boxes,
            labels=example.labels,
            ignore=example.ignore,
            masks=example.masks,
        )
