"""Coloured rectangles as a source, and streams over it, for the tests of the input pipeline."""

import itertools

import cv2
import numpy as np

from jdet.data.pipeline import eval_batches, train_batches
from jdet.data.transforms.multi_scale import View
from jdet.data.transforms.ssd import SSDAugment
from jdet.data.transforms.warp import Warp
from jdet.types import Batch, Example

MEAN = (123, 117, 104)
COLOURS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250], [240, 240, 10]], np.uint8)


def encode(image, suffix=".png"):
    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()


def warped(image):
    """An image as evaluation shows it at 32×32 pixels."""
    return View((32, 32)).prepare(image)[0]


class Images:
    """PNG bytes; objects are rectangles in the colour of their label, apart from each other.

    Image i has i mod 4 objects and 64 + i columns, image ``crowded`` has seven objects, and
    images in ``broken`` are truncated JPEGs.
    """

    class_names = ("red", "green", "blue", "yellow")

    def __init__(self, count, broken=(), crowded=None, empty=False):
        self.count, self.broken, self.crowded, self.empty = count, broken, crowded, empty

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        assert 0 <= index < self.count
        rng = np.random.default_rng(index)
        image = rng.integers(60, 120, (56, 64 + index, 3)).astype(np.uint8)
        objects = 0 if self.empty else 7 if index == self.crowded else index % 4
        cells = rng.permutation(8)[:objects]
        corner = np.stack([2 + 16 * (cells % 4), 2 + 27 * (cells // 4)], 1)
        boxes = np.concatenate([corner, corner + rng.integers(8, 15, (objects, 2))], 1)
        labels = rng.integers(0, 4, objects).astype(np.int32)
        for (x0, y0, x1, y1), label in zip(boxes, labels, strict=True):
            image[y0:y1, x0:x1] = COLOURS[label]
        data = encode(image)
        if index in self.broken:
            data = encode(image, ".jpg")[:-40]
        boxes = boxes.reshape(-1, 4).astype(np.float32)
        ignore = labels == 3
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        return Example(f"p{index}", data, boxes, labels, ignore, areas)


TURNED = {"flip_vertical": 0.5, "rotate": 0.5}
PLAIN = {"photometric": 0.0, "expand": 0.0, "crop": False, "flip": 0.0, "interpolation": "linear"}


def stream(source, **changes):
    options = {"augment": SSDAugment(), "max_boxes": 5, "batch_size": 4, "seed": 1}
    return train_batches(source, **{"resize": Warp(32), **options, "threads": 0, **changes})


def take(source, count, **changes):
    with stream(source, **changes) as batches:
        return list(itertools.islice(batches, count))


def evaluate(source, **changes):
    if "views" not in changes:
        changes = {"resize": Warp(32), **changes}
    with eval_batches(source, **{"batch_size": 4, "threads": 0, **changes}) as s:
        return list(s)


def assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for name in Batch._fields:
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None) == (y is None), name
            if x is not None:
                np.testing.assert_array_equal(x, y, err_msg=name, strict=True)


def column(batches, name):
    """A field of all batches in one array; empty where the batches do not have it."""
    fields = [getattr(batch, name) for batch in batches]
    return np.zeros(0) if fields[0] is None else np.concatenate(fields)
