import numpy as np
import pytest

from jdet.data.holdout import Holdout
from jdet.types import DataError, Example


class Names:
    class_names = ("a",)

    def __init__(self, names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        empty = np.zeros((0,), np.int32)
        return Example(self.names[index], "", np.zeros((0, 4)), empty, empty > 0, empty)


def ids(source):
    return {source[i].id for i in range(len(source))}


def test_sides_are_disjoint_complete_and_about_the_right_size():
    source = Names([f"picture{i}" for i in range(1000)])
    rest, held_out = Holdout(source, 10, False), Holdout(source, 10, True)
    assert ids(rest) | ids(held_out) == set(source.names) and not ids(rest) & ids(held_out)
    assert 70 <= len(held_out) <= 130


def test_a_picture_stays_on_its_side_when_others_come():
    few = Names([f"picture{i}" for i in range(100)])
    many = Names([f"picture{i}" for i in range(100)] + [f"new{i}" for i in range(50)])
    assert ids(Holdout(few, 5, True)) == ids(Holdout(many, 5, True)) & set(few.names)


def test_an_empty_side_is_an_error():
    with pytest.raises(DataError, match="config.data.holdout=1000"):
        Holdout(Names(["a", "b"]), 1000, True)
