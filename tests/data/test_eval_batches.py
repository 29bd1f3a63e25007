"""Evaluation batches: order, padding, processes, several views."""

import cv2
import numpy as np
import pytest

from jdet.data.pipeline import eval_batches
from jdet.data.transforms.multi_scale import View
from jdet.data.transforms.warp import Warp
from tests.data.images import (
    Images,
    column,
    evaluate,
    warped,
)


def test_evaluation_covers_the_source_in_order():
    source = Images(10)
    batches = evaluate(source, max_boxes=4)
    assert len(batches) == 3
    np.testing.assert_array_equal(column(batches, "real"), np.arange(12) < 10)
    np.testing.assert_array_equal(column(batches, "index"), [*range(10), 0, 0])
    for batch in batches:
        for row in np.flatnonzero(batch.real):
            example = source[batch.index[row]]
            original = cv2.imdecode(np.frombuffer(example.image, np.uint8), cv2.IMREAD_COLOR)
            expected = warped(original[..., ::-1])
            np.testing.assert_array_equal(batch.images[row], expected)
            height, width = batch.original_sizes[row]
            assert (height, width) == original.shape[:2]
            valid = batch.valid[row]
            scale = np.array([width / 32, height / 32] * 2)
            np.testing.assert_allclose(batch.boxes[row][valid] * scale, example.boxes, atol=1e-4)
            np.testing.assert_array_equal(batch.labels[row][valid], example.labels)
    last = batches[-1]
    assert not last.images[2:].any() and not last.valid[2:].any()


def test_evaluation_length_limit_and_no_objects():
    with eval_batches(Images(10), resize=Warp(32), batch_size=4, limit=5, threads=1) as batches:
        assert batches.length == 2
        seen = list(batches)
        assert batches.report() == ({}, 0, 0, 0)
    assert column(seen, "real").sum() == 5
    assert seen[0].boxes.shape == (4, 0, 4)
    assert len(evaluate(Images(3), limit=99)) == 1


def test_evaluation_gives_processes_equally_many_batches():
    source = Images(9)
    parts = [evaluate(source, process_index=p, process_count=2) for p in (0, 1)]
    assert [len(part) for part in parts] == [3, 3]
    rows = [np.concatenate([a.index, b.index]) for a, b in zip(*parts, strict=True)]
    np.testing.assert_array_equal(np.concatenate(rows), column(evaluate(source), "index"))


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_at_several_sizes(workers):
    source, views = Images(5), [View(s) for s in ((32, 32), (24, 40), (40, 24), (48, 48))]
    plain = evaluate(source)
    batches = evaluate(source, views=views, workers=workers)
    for one, many in zip(plain, batches, strict=True):
        np.testing.assert_array_equal(many.images[0], one.images)
        for name in ("index", "real"):
            np.testing.assert_array_equal(getattr(many, name), getattr(one, name))
        for row in np.flatnonzero(one.real):
            original = cv2.imdecode(
                np.frombuffer(source[one.index[row]].image, np.uint8), cv2.IMREAD_COLOR
            )[..., ::-1]
            np.testing.assert_array_equal(many.original_sizes[row], original.shape[:2])
            for images, sizes, view in zip(many.images, many.image_sizes, views, strict=True):
                assert images.shape == (4, *view.shape, 3)
                if view.shows(*original.shape[:2]):
                    np.testing.assert_array_equal(images[row], view.prepare(original)[0])
                    np.testing.assert_array_equal(sizes[row], view.shape)
                else:
                    assert not images[row].any() and not sizes[row].any()
    last = batches[-1]
    assert not any(x[1:].any() for x in (*last.images, *last.image_sizes))


def test_long_and_short_side_keep_their_meaning():
    landscape, portrait, square = (24, 40), (40, 24), (32, 32)
    for size, seen in (((10, 30), [1, 0, 1]), ((30, 10), [0, 1, 1]), ((10, 10), [1, 0, 1])):
        assert [View(shape).shows(*size) for shape in (landscape, portrait, square)] == seen


def test_strong_shrink_averages():
    """A fine grid that linear interpolation would read as flat becomes its mean."""
    image = np.zeros((320, 320, 3), np.uint8)
    image[::2] = 200
    assert (np.abs(warped(image).astype(int) - 100) <= 1).all()


def test_views_or_a_resize():
    for changes in ({}, {"resize": Warp(8), "views": [View((8, 8))]}):
        with pytest.raises(TypeError, match="either"):
            eval_batches(Images(2), batch_size=1, **changes)
