"""The first epoch of all processes together has a least share of images that can be used."""

import functools
import itertools

import numpy as np
import pytest

from jdet.data.transforms.warp import Warp
from jdet.train import loop
from jdet.types import DataError
from tests.data.images import Images, stream
from tests.train import fake


def alone(value):
    return [value]


def read(batches):
    """Reads five batches, and asks after each."""
    for batch in itertools.islice(batches, 5):
        batches.check_first_epoch(batches.position, alone)
        assert len(batch.real) == 4


@pytest.mark.parametrize("start", [0, 1, 7])
def test_a_run_is_judged_once_after_a_whole_epoch(start):
    options = {"on_error": "skip", "start": start, "min_usable": 0.5}
    with stream(Images(8, broken=range(7)), **options) as batches:
        with pytest.raises(DataError, match=r"the first epoch: .* of its images can be used"):
            read(batches)
        assert batches.position == start + 2
    with stream(Images(8, broken=(3,)), **options) as batches:
        read(batches)


@pytest.mark.parametrize("more, fine", [(0, True), (2, False)])
def test_processes_are_judged_together(more, fine):
    """The first of two can use 1 of its 8 images, the second all but ``more``."""

    def streams(source):
        options = {"on_error": "skip", "batch_size": 8, "process_count": 2, "min_usable": 0.5}
        return [stream(source, process_index=process, **options) for process in (0, 1)]

    dealt = [
        np.concatenate([batch.index for batch in itertools.islice(batches, 2)]).tolist()
        for batches in streams(Images(16))
    ]
    both = streams(Images(16, broken=dealt[0][:7] + dealt[1][:more]))
    for batches in both:
        list(itertools.islice(batches, 2))
    reports = [batches.report().skipped for batches in both]
    travelled = []

    def gather(value):
        travelled.append(value)
        return reports if isinstance(value, dict) else [(8, 7), (8, more)]

    for batches in both:
        if fine:
            batches.check_first_epoch(2, gather)
        else:
            with pytest.raises(DataError, match=r"only 44% of its images .* and 6 more"):
                batches.check_first_epoch(2, gather)
        batches.close()
    both = [(8, 7), (8, more)]
    assert travelled == (both if fine else [both[0], reports[0], both[1], reports[1]])


class TwoClasses(Images):
    class_names = ("red", "green")

    def __getitem__(self, index):
        example = super().__getitem__(index)
        return example._replace(labels=example.labels % 2)


def test_a_training_ends_where_too_few_images_can_be_used(tmp_path):
    source = TwoClasses(24, broken=range(13))

    def rows(start, least):
        return stream(
            source,
            resize=Warp(fake.SIDE),
            max_boxes=fake.OBJECTS,
            batch_size=8,
            on_error="skip",
            min_usable=least,
            start=start,
        )

    def train(least):
        return loop.train(
            fake.config(train__steps=4),
            tmp_path / str(least),
            detector=fake.FakeDetector(),
            train_stream=functools.partial(rows, least=least),
            num_examples=24,
        )

    with pytest.raises(DataError, match="the first epoch: only 46%"):
        train(0.5)
    assert train(0.4).status == "completed"
