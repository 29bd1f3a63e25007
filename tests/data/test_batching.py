"""Orders of streams against the obvious way: hand out images one by one, send full batches."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdet.data.batching import EvalOrder, Slot, TrainOrder, shapes_of
from jdet.data.transforms.keep_ratio import KeepRatio
from jdet.types import DataError


def literal(shapes, batch_size, seed, epochs):
    """Batches of (shape, images), as a loop over shuffled images makes them."""
    waiting = {shape: [] for shape in set(shapes)}
    batches = []
    for epoch in range(epochs):
        for image in np.random.default_rng([seed, epoch]).permutation(len(shapes)):
            group = waiting[shapes[image]]
            group.append(int(image))
            if len(group) == batch_size:
                batches.append((shapes[image], group[:]))
                group.clear()
    return batches


@given(st.lists(st.integers(0, 2), min_size=1, max_size=20), st.integers(1, 7), st.integers(0, 99))
def test_training_order_is_that_of_the_loop(shapes, batch_size, seed):
    order = TrainOrder(np.array(shapes), batch_size, seed)
    expected = literal(shapes, batch_size, seed, epochs=6)
    for k, (shape, images) in reversed(list(enumerate(expected))):  # any place, in any order
        rows = [order[k * batch_size + row] for row in range(batch_size)]
        assert rows == [Slot(image, shape) for image in images]


def test_far_places_are_found_without_walking_there():
    rng = np.random.default_rng(0)
    shapes = rng.choice(3, 10_000, p=[0.7, 0.2999, 0.0001])
    order = pickle.loads(pickle.dumps(TrainOrder(shapes, 16, 3)))
    places = range(16 * 10**6, 16 * 10**6 + 160)  # 1600 epochs on
    seats = [order[place] for place in places]
    assert all(shapes[seat.image] == seat.shape for seat in seats)
    for first in range(0, 160, 16):
        assert len({seat.shape for seat in seats[first : first + 16]}) == 1


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 8))
def test_evaluation_order_fills_up_every_shape(shapes, batch_size):
    order = EvalOrder(np.array(shapes), batch_size)
    seats = [order[place] for place in range(len(order))]
    real = [seat for seat in seats if seat.image >= 0]
    assert sorted(seat.image for seat in real) == list(range(len(shapes)))
    assert all(shapes[seat.image] == seat.shape for seat in real)
    counts = np.bincount(shapes)
    assert len(seats) == sum(-(-count // batch_size) * batch_size for count in counts)
    for first in range(0, len(seats), batch_size):
        assert len({seat.shape for seat in seats[first : first + batch_size]}) == 1


def test_unreadable_sizes_follow_on_error():
    class Broken:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            raise DataError("gone.jpg cannot be read")

    resize = KeepRatio(shapes=((8, 16), (16, 8)), short=(8,), long=16)
    assert shapes_of(Broken(), resize, 2, "skip").tolist() == [0, 0]
    with pytest.raises(DataError, match=r"gone\.jpg"):
        shapes_of(Broken(), resize, 2, "raise")
