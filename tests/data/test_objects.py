"""Objects of a set in flat arrays, without a look at any image."""

import numpy as np
import pytest

from jdet.data.objects import check_any, read_set
from jdet.types import DataError, Example


class Squares:
    """Images of 20 × 40 pixels with 0, 1, 2 … squares of 10 pixels; the size of the last is unknown."""

    class_names = ("a",)

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        boxes = np.tile(np.array([0, 0, 10, 10], np.float32), (index, 1))
        labels = np.zeros(index, np.int32)
        return Example(str(index), "nowhere.png", boxes, labels, labels > 0, labels + 100.0)

    def image_size(self, index):
        return (20, 40) if index < self.count - 1 else None


def test_objects_of_a_set():
    found = read_set(Squares(4))
    assert found.most == 3 and found.counts.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(found.relative, [np.sqrt(100 / 800)] * 3)
    assert found.image.tolist() == [1, 2, 2] and found.sizes[0].tolist() == [40, 20]
    check_any(found, Squares(4))
    empty = read_set(Squares(1))
    assert empty.most == 1 and not len(empty.sides)
    with pytest.raises(DataError, match="no boxes"):
        check_any(empty, Squares(1))
