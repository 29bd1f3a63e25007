"""Rows become batches: field by field, with the notes about what was left out."""

import numpy as np

from jdet.data.stream import collate
from jdet.data.transforms.finish import Row
from jdet.types import Batch


def row(index, masks=None, views=0, **notes):
    image = np.full((4, 6, 3), index, np.uint8)
    size = np.array([4, 6], np.int32)
    fields = Batch(
        images=(image,) * views if views else image,
        boxes=np.zeros((2, 4), np.float32),
        labels=np.array([index, 0], np.int32),
        valid=np.array([True, False]),
        ignore=np.zeros(2, bool),
        image_sizes=(size,) * views if views else size,
        original_sizes=size,
        index=np.int32(index),
        real=np.bool_(True),
        masks=masks,
    )
    return Row(fields=fields, **{"id": f"p{index}", "problem": "", "dropped": 0, **notes})


def test_fields_that_no_row_has_stay_none():
    loaded = collate([row(3), row(4)])
    assert loaded.batch.masks is None
    assert loaded.batch.images.shape == (2, 4, 6, 3)
    assert loaded.batch.index.tolist() == [3, 4] and loaded.batch.labels.tolist() == [
        [3, 0],
        [4, 0],
    ]


def test_masks_are_stacked_like_any_field():
    masks = [np.full((2, 5, 5), value, np.uint8) for value in (0, 1)]
    batch = collate([row(i, masks=m) for i, m in enumerate(masks)]).batch
    np.testing.assert_array_equal(batch.masks, np.stack(masks))


def test_views_are_stacked_one_by_one():
    batch = collate([row(1, views=3), row(2, views=3)]).batch
    assert [images.shape for images in batch.images] == [(2, 4, 6, 3)] * 3
    assert [sizes.shape for sizes in batch.image_sizes] == [(2, 2)] * 3


def test_notes_name_the_images():
    loaded = collate([row(1, problem="p1: empty"), row(2), row(3, dropped=4)])
    assert loaded.skipped == (("p1", "p1: empty"),) and loaded.crowded == (("p3", 4),)
