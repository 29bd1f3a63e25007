"""Repeat factors and class weights: formulas, draws of epochs, and streams that resume exactly."""

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdet.data import balance
from jdet.data.batching import TrainOrder
from jdet.data.sources.rebalanced import Rebalanced
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.keep_ratio import KeepRatio
from jdet.data.transforms.warp import Warp
from jdet.types import DataError, Example
from tests.data.images import Images, assert_equal, stream


class Labels:
    """Images without pixels; image i shows ``labels[i]``, ignored where negative (~label)."""

    class_names = ("common", "rare", "never")

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        if self.labels[index] is None:
            raise DataError("gone.jpg cannot be read")
        given = np.array(self.labels[index], np.int32)
        labels = np.where(given < 0, ~given, given).astype(np.int32)
        boxes = np.zeros((len(given), 4), np.float32)
        return Example(str(index), b"", boxes, labels, given < 0, boxes[:, 0])


SKEWED = Labels([[0]] * 95 + [[0, 1, 1], [1], [~1], [], None])


def test_classes_are_counted_once_an_image_and_without_ignored_objects():
    found = balance.occurrence(SKEWED)
    assert found.objects.tolist() == [96, 3, 0] and found.images.tolist() == [96, 2, 0]
    assert [x.tolist() for x in found.shown[94:]] == [[0], [0, 1], [1], [], [], []]


def test_factors_are_those_of_lvis():
    found = balance.occurrence(SKEWED)
    of_class = balance.class_factors(found, 0.08)  # "rare" is shown by 2 of 100 images
    np.testing.assert_allclose(of_class, [1, 2, 1])
    of_image = balance.image_factors(found, 0.08)
    np.testing.assert_allclose(of_image, [1] * 95 + [2, 2, 1, 1, 1])
    assert (balance.image_factors(found, 0.001) == 1).all()


def test_weights_are_inverse_frequencies_or_effective_numbers_with_a_mean_of_one_over_objects():
    objects = np.array([500, 10, 0])
    inverse = np.array(balance.class_weights(objects, "inverse_frequency"))
    np.testing.assert_allclose(inverse, [510 / 2 / 500, 510 / 2 / 10, 1], rtol=1e-5)
    effective = np.array(balance.class_weights(objects, "effective_number", 0.99))
    expected = [(1 - 0.99) / (1 - 0.99**n) for n in (500, 10)]
    np.testing.assert_allclose(effective[1] / effective[0], expected[1] / expected[0], rtol=1e-5)
    np.testing.assert_allclose(effective @ objects / 510, 1, rtol=1e-5)
    assert balance.class_weights(objects, "effective_number", 0.0) == (1, 1, 1)
    assert balance.class_weights([0, 0], "inverse_frequency") == (1, 1)


@given(st.lists(st.floats(1, 9), min_size=1, max_size=30), st.integers(0, 99))
def test_every_epoch_rounds_factors_down_or_up_and_has_one_length(factors, seed):
    factors = np.array(factors)
    for count in {balance.whole(factors.sum()), int(factors.sum())}:  # up or down
        copies = balance.draw_copies(np.random.default_rng(seed), factors, count)
        assert copies.sum() == count
        stretch = max(count / factors.sum(), 1)
        assert (copies >= np.floor(factors)).all() and (copies <= np.ceil(factors * stretch)).all()


@given(st.lists(st.tuples(st.floats(1, 9), st.integers(0, 3)), min_size=1, max_size=30))
def test_shapes_share_the_length_of_the_epoch(images):
    """1.3 × 5 images in each of two shapes are 13, as in one, not 7 + 7."""
    factors, shapes = map(np.array, zip(*images, strict=True))
    totals = np.bincount(shapes, weights=factors)
    parts = np.array(balance.whole_parts(totals))
    assert parts.sum() == balance.whole(factors.sum()) and (np.abs(parts - totals) < 1).all()
    order = TrainOrder(shapes, 1, 0, factors)
    seats = [order[place] for place in range(parts.sum())]
    assert Counter(seat.shape for seat in seats) == Counter(np.repeat(np.arange(len(parts)), parts))
    assert {seat.image for seat in seats} == set(range(len(images)))
    assert balance.whole_parts(np.array([6.5, 6.5])) == [7, 6]


def test_fractions_are_drawn_without_bias():
    factors = np.array([1.0, 1.25, 2.6, 1.15] * 5)  # a whole sum
    rng = np.random.default_rng(0)
    mean = np.mean([balance.draw_copies(rng, factors, 30) for _ in range(1000)], axis=0)
    np.testing.assert_allclose(mean, factors, atol=0.06)
    mean = np.mean([balance.draw_copies(rng, factors, 29) for _ in range(1000)], axis=0)
    np.testing.assert_allclose(mean, np.floor(factors) + factors % 1 * 4 / 5, atol=0.06)


@pytest.mark.parametrize("shapes", [[0] * 16, [0, 1] * 8], ids=["one shape", "two shapes"])
def test_order_repeats_images_and_finds_any_place(shapes):
    factors = np.array([1.0, 1.0, 3.5, 1.0] * 4)  # whole sums
    order = TrainOrder(np.array(shapes), 3, 5, factors)
    seats = [
        order[place] for place in range(3 * 26)
    ]  # three epochs, the last batches of some shapes
    counts = Counter(seat.image for seat in seats)
    assert all(abs(counts[i] - 3 * factors[i]) <= 1.5 for i in range(16)), counts
    if len({*shapes}) == 1:
        assert all(counts[i] == 3 or factors[i] > 1 for i in range(16))
    assert all(shapes[seat.image] == seat.shape for seat in seats)
    again = pickle.loads(pickle.dumps(order))
    assert [again[place] for place in (70, 3, 40)] == [seats[place] for place in (70, 3, 40)]


def test_repeats_of_one_are_no_repeats():
    order, plain = (TrainOrder(np.zeros(7, int), 2, 1, f) for f in (np.ones(7), None))
    epochs = [sorted(o[place].image for place in range(14)) for o in (order, plain)]
    assert epochs[0] == epochs[1] == sorted([*range(7)] * 2)


RESIZES = [Warp(32), KeepRatio(shapes=((32, 64), (64, 64)), short=(32,), long=64)]


@pytest.mark.parametrize("resize", RESIZES, ids=["warp", "keep_ratio"])
def test_stream_resumes_exactly_and_is_dealt_out_to_processes(resize):
    source = Rebalanced(Images(10), 0.9)
    length = balance.epoch_length(source)
    assert 10 < length <= 20 and source.class_names == Images.class_names

    def take(count, **changes):
        with stream(source, resize=resize, augment=Augment(), **changes) as batches:
            return list(itertools.islice(batches, count))

    whole = take(8)
    seen = Counter(int(i) for batch in whole for i in batch.index)
    rare = np.flatnonzero(source.repeat_factors > 1.2)
    assert max(seen[int(i)] for i in rare) > min(seen.values())
    assert_equal(take(3, start=5), whole[5:])
    for p in range(2):
        part = take(8, process_index=p, process_count=2)
        for ours, theirs in zip(part, whole, strict=True):
            np.testing.assert_array_equal(ours.index, theirs.index[2 * p : 2 * p + 2])


def test_what_repeats_is_told():
    first, second = Rebalanced(SKEWED, 0.08).describe_repeats()
    assert "an epoch has 102 images, of 100 images that come 1 to 2 times" in first
    assert second.endswith("rare × 2 (2 images); all others × 1")
    (line,) = Rebalanced(SKEWED, 0.01).describe_repeats()
    assert line.endswith("no class is rarer than that")
    assert len(pickle.loads(pickle.dumps(Rebalanced(SKEWED, 0.1)))) == 100
