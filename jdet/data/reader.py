"""One image of a source, decoded and held against its labels, or why it cannot be used."""

from __future__ import annotations

import dataclasses

import numpy as np

from jdet.data.image_io import check_size
from jdet.data.invalid import filled
from jdet.data.readers.decoder import Decoder
from jdet.data.readers.read import name_of
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
        decoder: of the source's images.
    """

    source: Source
    count: int
    on_error: str
    padded: int = 0
    values: ImageValues | None = None
    decoder: Decoder = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoder", Decoder.of(self.source))

    def __len__(self) -> int:
        return max(self.count, self.padded)

    def __getitem__(self, index: int) -> Element:
        if index >= self.count:
            return Element()
        name = f"image {index} of {type(self.source).__name__}"
        try:
            example = self.source[index]
            name = example.id
            where = name_of(example.image) if isinstance(example.image, (str, tuple)) else name
            image = self.decoder(example.image, where)
            if not isinstance(example.image, np.ndarray) and hasattr(self.source, "image_size"):
                check_size(image, self.source.image_size(index), where)
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
