"""Shapes from which nothing, or nothing right, can be learnt, each in a way of its own."""

from __future__ import annotations

import numpy as np

from jdet.data.sources.shapes import ShapesSource
from jdet.types import Example

WAYS = ("good", "shuffled", "shifted", "contradictory", "tiny", "constant")


class Spoiled(ShapesSource):
    """Shapes with what is wrong with them.

    Args:
        way: one of ``WAYS``: classes dealt anew; boxes moved by half their size and more; every object
            once more as another class; boxes a twelfth as large; images of one grey.
    """

    def __init__(self, way: str = "good", **shapes):
        super().__init__(**shapes)
        assert way in WAYS
        self._way = way

    def __getitem__(self, index: int) -> Example:
        return self.spoil(super().__getitem__(index), index)

    def spoil(self, example: Example, index: int) -> Example:
        """A good example made a bad one."""
        rng = np.random.default_rng(index)
        boxes, labels = example.boxes, example.labels
        height, width = example.image.shape[:2]
        classes = len(self.class_names)
        if self._way == "shuffled":
            labels = rng.integers(0, classes, len(labels)).astype(np.int32)
        elif self._way == "shifted":
            sides = boxes[:, 2:] - boxes[:, :2]
            low = rng.uniform(0, 1, sides.shape) * np.maximum([width, height] - sides, 0)
            boxes = np.concatenate([low, low + sides], 1).astype(np.float32)
        elif self._way == "contradictory":
            boxes, labels = np.tile(boxes, (2, 1)), np.tile(labels, 2)
            labels[len(labels) // 2 :] = (labels[len(labels) // 2 :] + 1) % classes
        elif self._way == "tiny":
            middle = (boxes[:, 2:] + boxes[:, :2]) / 2
            half = (boxes[:, 2:] - boxes[:, :2]) / 24
            boxes = np.concatenate([middle - half, middle + half], 1)
        elif self._way == "constant":
            example = example._replace(image=np.full_like(example.image, 30 + index % 9))
        return example._replace(
            boxes=boxes,
            labels=labels,
            ignore=np.zeros(len(labels), bool),
            areas=(boxes[:, 2:] - boxes[:, :2]).prod(1),
        )
