"""Another image in place of one of which training would see no object."""

from __future__ import annotations

import dataclasses

import numpy as np

from jdet.data.reader import Reader
from jdet.data.transforms.element import Element, Operation
from jdet.data.transforms.finish import locate, moved_objects
from jdet.data.transforms.resize import Resize
from jdet.types import DataError


@dataclasses.dataclass(frozen=True)
class Redraw:
    """A random operation after all others: draws images until one shows an object, a few times at most.

    Objects with ``ignore`` do not count. Where every draw fails, the first image is taken, without objects.
    Images that cannot be read are not drawn, and an unreadable first one stays, so that it is counted.

    Attributes:
        reader: of the training images.
        operations: that every image goes through, in their order.
        resize: what the network sees of images; its ``redraws`` are the number of draws.
    """

    reader: Reader
    operations: tuple[Operation, ...]
    resize: Resize

    def __call__(self, element: Element, rng: np.random.Generator) -> Element:
        """Returns the element, or another one with the same shape of the network input."""
        if element.image is None or self._shows(element):
            return element
        for _ in range(self.resize.redraws):
            other = self.reader[int(rng.integers(len(self.reader)))]
            if other.image is None or not self._same_shape(other, element):
                continue
            other = other._replace(shape=element.shape, alone=element.alone)
            for operation in self.operations:
                other = operation(other, rng)
            if self._shows(other):
                return other
        return element

    def _shows(self, element: Element) -> bool:
        _, keep = moved_objects(element, locate(element, self.resize))
        return not element.ignore[keep].all()

    def _same_shape(self, other: Element, element: Element) -> bool:
        assert other.image is not None
        shapes = self.resize.shapes
        return element.shape in (None, shapes[self.resize.shape_of(*other.image.shape[:2])])


def check_objects(reader: Reader) -> None:
    """Refuses a set of which no image has an object, in which draws could go on for ever.

    Raises:
        DataError: there is no object.
    """
    source = reader.source
    if not any((~source[index].ignore).any() for index in range(reader.count)):
        raise DataError(
            f"{type(source).__name__}: none of the {reader.count} training images has an object, so no "
            "part of them can show one; check the labels, or set config.resize.redraws=0"
        )
