"""Images and labels that cannot be read, and images with too many objects or none."""

import numpy as np
import pytest

from jdet.data.pipeline import eval_batches
from jdet.data.transforms.ssd import SSDAugment
from jdet.data.transforms.warp import Warp
from jdet.types import Batch, DataError
from tests.data.images import (
    MEAN,
    PLAIN,
    Images,
    column,
    evaluate,
    stream,
    take,
)


@pytest.mark.parametrize("threads", [0, 2])
def test_unreadable_image_raises_with_its_name(threads):
    with pytest.raises(DataError, match="p4: truncated JPEG"):
        take(Images(6, broken=(4,)), 3, threads=threads)
    with pytest.raises(DataError, match="p4: truncated JPEG"):
        evaluate(Images(6, broken=(4,)), threads=threads)


def test_unreadable_image_can_be_skipped(caplog):
    whole = take(Images(6), 6)
    with stream(Images(6, broken=(4,)), on_error="skip") as batches:
        seen = [next(batches) for _ in range(6)]
        report = batches.report()
    assert report.skips == 4 and list(report.skipped) == ["p4"]
    assert "truncated JPEG" in report.skipped["p4"]
    assert (
        caplog.text.count("Skipped p4: truncated") == 1
    )  # in the log once, in the report every time
    bad = column(seen, "index") == 4
    np.testing.assert_array_equal(column(seen, "real"), ~bad)
    assert (column(seen, "images")[bad] == MEAN).all() and not column(seen, "valid")[bad].any()
    for name in set(Batch._fields) - {"masks"}:  # nothing else moves
        np.testing.assert_array_equal(column(seen, name)[~bad], column(whole, name)[~bad])


def test_what_was_left_out_is_listed_at_the_end_of_each_epoch(caplog):
    with stream(Images(6, broken=(4,)), on_error="skip") as batches:
        for _ in range(4):
            next(batches)
    ends = [r.getMessage() for r in caplog.records if "end of epoch" in r.getMessage()]
    assert ends and "(p4)" in ends[0] and "end of epoch 1" in ends[0]


def test_skipped_image_is_left_out_of_the_evaluation():
    (batch,) = evaluate(Images(4, broken=(2,)), on_error="skip")
    assert batch.real.tolist() == [True, True, False, True]
    assert batch.index.tolist() == [0, 1, 2, 3]


class BrokenLabels(Images):
    def __getitem__(self, index):
        if index == 1:
            raise DataError("labels/1.xml: not well-formed")
        return super().__getitem__(index)


def test_unreadable_labels_count_like_unreadable_images():
    with pytest.raises(DataError, match=r"1\.xml"):
        evaluate(BrokenLabels(4))
    with eval_batches(BrokenLabels(4), resize=Warp(8), batch_size=4, on_error="skip") as batches:
        assert next(batches).real.tolist() == [True, False, True, True]
        assert batches.report().skipped == {
            "image 1 of BrokenLabels": "labels/1.xml: not well-formed"
        }


def test_file_names_appear_in_errors(tmp_path):
    class Files(Images):
        def __getitem__(self, index):
            return super().__getitem__(index)._replace(image=str(tmp_path / f"{index}.jpg"))

    with pytest.raises(DataError, match=r"0\.jpg: cannot be read"):
        evaluate(Files(2))


class Sizes(Images):
    """As label files say them; image 1 was turned after it was labelled, 2 was made smaller."""

    def image_size(self, index):
        return [(56, 64), (65, 56), (112, 132)][index]


def test_images_that_disagree_with_their_labels(tmp_path):
    for index, words in (
        (1, "65x56 .*say 56x65; width and height are exchanged"),
        (2, "66x56 .*say 132x112; put back"),
    ):
        source = Sizes(3)
        source.image_size = lambda i, index=index: Sizes(3).image_size(i) if i == index else None
        with pytest.raises(DataError, match=f"p{index}: the image is {words}"):
            evaluate(source)
    with eval_batches(Sizes(3), resize=Warp(8), batch_size=3, on_error="skip") as batches:
        assert next(batches).real.tolist() == [True, False, False]
        assert sorted(batches.report().skipped) == ["p1", "p2"]


def test_sizes_of_images_in_memory_are_not_asked_for():
    class Drawn(Images):
        def image_size(self, index):
            raise AssertionError("drawing it again costs as much as the image")

        def __getitem__(self, index):
            return super().__getitem__(index)._replace(image=np.zeros((9, 9, 3), np.uint8))

    evaluate(Drawn(2))


def test_more_objects_than_rows(caplog):
    """The largest that are not ignored stay, in their order; the rest is counted, and said once."""
    source, options = Images(6, crowded=2), SSDAugment(**PLAIN)
    with stream(source, max_boxes=3, augment=options, batch_size=6) as batches:
        seen = [next(batches) for _ in range(3)]
        assert batches.report() == ({}, 0, 3, 12)
    assert caplog.text.count("p2 has 4 objects more than data.max_boxes") == 1
    example = source[2]
    largest = np.sort(np.lexsort((-example.areas, example.ignore))[:3])
    for batch in seen:
        (row,) = np.flatnonzero(batch.index == 2)
        assert batch.valid[row].all()
        np.testing.assert_array_equal(batch.labels[row], example.labels[largest])
    with eval_batches(source, resize=Warp(8), batch_size=6) as batches:
        next(batches)
        assert batches.report().dropped_boxes == 0  # none were asked for


def test_crowds_give_way_to_objects():
    """However large: the largest of the others stay first."""

    class Crowded(Images):
        def __getitem__(self, index):
            example = super().__getitem__(index)
            largest = np.argsort(-example.areas, kind="stable")[:5]
            return example._replace(ignore=np.isin(np.arange(len(example.boxes)), largest))

    source = Crowded(3, crowded=2)
    with stream(source, max_boxes=3, augment=SSDAugment(**PLAIN), batch_size=3) as batches:
        batch = next(batches)
    (row,) = np.flatnonzero(batch.index == 2)
    example = source[2]
    crowds = np.flatnonzero(example.ignore)
    kept = np.sort([*np.flatnonzero(~example.ignore), crowds[example.areas[crowds].argmax()]])
    np.testing.assert_array_equal(batch.labels[row], example.labels[kept])
    np.testing.assert_array_equal(batch.ignore[row], example.ignore[kept])


def test_images_without_objects_are_kept():
    batches = take(Images(4, empty=True), 2)
    assert np.unique(column(batches, "index")).size == 4
    assert column(batches, "real").all() and not column(batches, "valid").any()
