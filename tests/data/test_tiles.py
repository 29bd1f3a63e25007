"""Random tiles of training: pixels, objects and masks follow; epochs count tiles."""

import itertools

import numpy as np
import pytest

from jdet import build
from jdet.config import get_defaults
from jdet.data import balance
from jdet.data.batching import shapes_of
from jdet.data.segmentation import decode, encode
from jdet.data.sources.rebalanced import Rebalanced
from jdet.data.tiles import RandomTile
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.element import Element
from jdet.data.transforms.finish import Finish
from jdet.data.transforms.keep_ratio import KeepRatio
from jdet.data.transforms.warp import Warp
from tests.data.images import Images, assert_equal, stream

BOXES = np.array([[10, 10, 30, 20], [50, 40, 90, 70], [0, 0, 5, 5]], np.float32)


def element(masks=None):
    image = np.random.default_rng(0).integers(0, 256, (80, 120, 3)).astype(np.uint8)
    labels = np.array([0, 1, 2], np.int32)
    return Element(image=image, boxes=BOXES, labels=labels, ignore=labels == 2, masks=masks)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_objects_stay_by_their_share_in_the_tile(share):
    whole, kept = element(), 0
    for seed in range(100):
        cut = RandomTile(40, share, 0.5)(whole, np.random.default_rng(seed))
        y, x, *size = cut.cut_from
        assert size == [80, 120] and cut.image.shape == (40, 40, 3)
        np.testing.assert_array_equal(cut.image, whole.image[y : y + 40, x : x + 40])
        clipped = np.clip(BOXES - [x, y, x, y], 0, 40)
        area, full = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (clipped, BOXES))
        keep = (area > 0) & (area >= share * full)
        np.testing.assert_allclose(cut.boxes, clipped[keep])
        np.testing.assert_array_equal(cut.labels, whole.labels[keep])
        np.testing.assert_array_equal(cut.ignore, whole.ignore[keep])
        kept += keep.sum()
    assert kept > 30


def test_tiles_around_objects_hold_one_whole_where_it_fits():
    whole, seen = element(), np.zeros(3, int)
    for seed in range(100):
        cut = RandomTile(48, 1.0, 1.0)(whole, np.random.default_rng(seed))
        assert {0, 1} & {*cut.labels.tolist()}  # one that is not ignored
        seen[cut.labels] += 1
    assert (seen[:2] > 25).all()
    wide = RandomTile(200, 0.5, 1.0)(whole, np.random.default_rng(0))
    assert wide.image.shape == (80, 120, 3) and len(wide.boxes) == 3
    lost = RandomTile(16, 0.5, 1.0)(Element(problem="gone"), np.random.default_rng(0))
    assert lost.image is None


def test_masks_are_those_of_the_whole_image():
    """Cut to the visible part of each box, exactly as they would be from a mask that is cut."""
    masks = np.zeros((3, 80, 120), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, BOXES.astype(int), strict=True):
        mask[y1:y2, x1:x2] = np.random.default_rng(1).integers(0, 2, (y2 - y1, x2 - x1))
    whole = element(tuple(encode(mask) for mask in masks))
    finish = Finish(Warp(40), 3, (0.0,) * 3, mask_size=28)
    for seed in range(5):
        cut = RandomTile(40, 0.1, 1.0)(whole, np.random.default_rng(seed))
        y, x, *_ = cut.cut_from
        tiles = [decode(m, 80, 120)[y : y + 40, x : x + 40] for m in cut.masks]
        plain = cut._replace(masks=tuple(map(encode, tiles)), cut_from=None)
        ours, theirs = (finish(each).fields.masks for each in (cut, plain))
        assert ours.any()
        np.testing.assert_array_equal(ours, theirs)


def test_stream_of_tiles_keeps_resolution_and_resumes():
    source, tile = Images(6), RandomTile(32)

    def take(count, **changes):
        options = dict(resize=Warp(32), augment=Augment(), tile=tile)
        with stream(source, **options, **changes) as batches:
            return list(itertools.islice(batches, count))

    whole = take(4)
    assert_equal(take(2, start=2), whole[2:])
    assert all((batch.original_sizes == 32).all() for batch in whole)
    for batch in whole:
        for image, boxes, valid in zip(batch.images, batch.boxes, batch.valid, strict=True):
            for x1, y1, x2, y2 in boxes[valid].astype(int):  # uniform in the colour of its label
                assert len(np.unique(image[y1:y2, x1:x2].reshape(-1, 3), axis=0)) == 1


def test_an_epoch_counts_tiles_and_shapes_are_those_of_tiles():
    source = Rebalanced(Images(4), 0.0, 32)  # 56 × 64 … 67
    assert source.repeat_factors.tolist() == [4, 6, 6, 6] and balance.epoch_length(source) == 22
    (line,) = source.describe_repeats()
    assert line.startswith("an epoch has 22 tiles of 32 pixels, of 4 images")
    resize = KeepRatio(shapes=((32, 32), (32, 64)), short=(32,), long=64)
    shapes = [shapes_of(Images(4), resize, 4, "raise", side).tolist() for side in (0, 32)]
    assert shapes == [[1] * 4, [0] * 4]
    config = get_defaults()
    assert build.train_tile(config) is None
    config.data.tile.side, config.data.tile.share = 32, 0.25
    assert build.train_tile(config) == RandomTile(32, 0.25, 0.5)
    train, _ = build.sources(config)
    assert train.repeat_factors.min() >= 9  # images of 96 pixels and more
