"""Images of several in the stream: deterministic, resumable, labels at their objects, until they stop."""

import pickle

import numpy as np
import pytest

from jdet import build
from jdet.config import get_defaults
from jdet.data.mix import Mix
from jdet.data.reader import Reader
from jdet.data.tiles import RandomTile
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.element import Element
from jdet.data.transforms.fit_crop import FitCrop
from jdet.data.transforms.keep_ratio import KeepRatio
from jdet.data.transforms.ssd import SSDAugment
from jdet.data.transforms.warp import Warp
from jdet.types import Batch, ConfigError
from tests.data.images import COLOURS, PLAIN, Images, assert_equal, column, stream, take

ALL = Mix(mosaic=0.7, mixup=0.4, copy_paste=0.5)


def test_threads_processes_and_resuming_change_nothing():
    source = Images(9)
    whole = take(source, 6, mix=ALL)
    assert_equal(whole, take(source, 6, mix=ALL, threads=2, prefetch=2))
    assert_equal(whole[4:], take(source, 2, mix=ALL, start=4))
    parts = [take(source, 6, mix=ALL, process_index=p, process_count=2) for p in (0, 1)]
    names = [name for name in Batch._fields if name != "masks"]
    both = [Batch(**{n: column(pair, n) for n in names}) for pair in zip(*parts, strict=True)]
    assert_equal(whole, both)
    plain = take(source, 6)
    np.testing.assert_array_equal(column(whole, "index"), column(plain, "index"))
    assert (column(whole, "images") != column(plain, "images")).any(axis=(1, 2, 3)).mean() > 0.5


def test_workers_get_the_same_operations():
    """They travel pickled, and draw the same from the same seed."""
    for operation in ALL.operations(Reader(Images(9), 9, "raise"), (0.0,) * 3, None).values():
        copy = pickle.loads(pickle.dumps(operation))
        given = operation.reader[3]
        for seed in range(4):
            one, other = (each(given, np.random.default_rng(seed)) for each in (operation, copy))
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.boxes, other.boxes)


def test_it_stops_at_a_step_and_a_run_that_resumes_knows():
    source = Images(9)
    stopping = Mix(mosaic=1.0, mixup=0.5, stop=3)
    whole, plain = take(source, 5, mix=stopping), take(source, 5)
    assert_equal(whole[3:], plain[3:])
    always = take(source, 5, mix=Mix(mosaic=1.0, mixup=0.5))
    assert_equal(whole[:3], always[:3])
    assert not any((a.images == b.images).all() for a, b in zip(always, plain, strict=True))
    for start in (2, 4):
        assert_equal(whole[start:], take(source, 5 - start, mix=stopping, start=start))


@pytest.mark.parametrize(
    "mix", [Mix(mosaic=1.0), Mix(copy_paste=1.0, low=1.0, high=1.0)], ids=["mosaic", "copy_paste"]
)
def test_labels_stay_with_their_objects(mix):
    """The middle of every box shows the colour of its label, after augmentation too."""
    changes = SSDAugment(photometric=0.0, interpolation="nearest", expand=0.0)
    batches = take(Images(40), 30, augment=changes, resize=Warp(160), mix=mix, max_boxes=20)
    seen, right = 0, 0
    for image, boxes, labels, valid, ignore in zip(
        *(column(batches, n) for n in ("images", "boxes", "labels", "valid", "ignore")), strict=True
    ):
        np.testing.assert_array_equal(ignore[valid], labels[valid] == 3)
        for box, label in zip(boxes[valid & ~ignore], labels[valid & ~ignore], strict=True):
            if (box[2:] - box[:2] > 6).all():
                x, y = ((box[:2] + box[2:]) / 2).astype(int)
                seen += 1
                right += (np.abs(image[y, x].astype(int) - COLOURS[label]) < 40).all()
    # Pasted boxes may cover the middle of another object of which enough is left.
    assert seen > 100 and right / seen > (0.99 if mix.mosaic else 0.9)


def test_an_image_that_cannot_be_read_leaves_its_place_empty():
    source = Images(3, broken=(1,))
    batches = take(source, 12, mix=Mix(mosaic=1.0, mixup=1.0, copy_paste=1.0), on_error="skip")
    index, real = column(batches, "index"), column(batches, "real")
    np.testing.assert_array_equal(real, index != 1)
    assert not column(batches, "valid")[~real].any()


@pytest.mark.parametrize(
    "resize",
    [
        KeepRatio(shapes=((32, 32), (32, 64)), short=(32,), long=64),
        FitCrop(input_size=32),
    ],
    ids=["keep_ratio", "fit_crop"],
)
def test_other_resizes_and_tiles(resize):
    """Shapes follow from the first image; others are cut into tiles too."""
    augment = Augment() if resize.redraws else SSDAugment(**PLAIN)
    changes = dict(augment=augment, resize=resize, batch_size=2)
    plain = take(Images(6), 4, **changes)
    found = take(Images(6), 4, **changes, mix=ALL)
    if not resize.redraws:
        np.testing.assert_array_equal(column(found, "index"), column(plain, "index"))
    assert [b.images.shape for b in found] == [b.images.shape for b in plain]
    tiled = take(Images(6), 4, **changes, mix=ALL, tile=RandomTile(24))
    assert (column(tiled, "original_sizes") <= 24).all()


def test_others_are_drawn_from_all():
    reader = Reader(Images(5), 5, "raise")
    operation = Mix(mosaic=1.0, share=0.0, side=0.0).operations(reader, (0.0,) * 3, None)["mosaic"]
    rng = np.random.default_rng(0)
    blank = Element(image=np.zeros((56, 64, 3), np.uint8))
    labels = {tuple(operation(blank, rng).labels.tolist()) for _ in range(40)}
    own = [tuple(reader[i].labels.tolist()) for i in range(5)]
    assert {label for each in labels for label in each} == {x for each in own for x in each}
    assert operation(blank._replace(alone=True), rng).labels.tolist() == []
    assert operation(Element(), rng).image is None


def test_a_config_says_what_is_mixed_and_others_can_be_given():
    config = get_defaults()
    assert not build.train_mix(config).fires
    config.data.mix.mosaic, config.data.mix.stop = 0.5, 900
    assert build.train_mix(config) == Mix(mosaic=0.5, stop=900) and build.train_mix(config).fires
    config.data.mix.low = 2.0
    with pytest.raises(ConfigError, match="config.data.mix.low=2.0; it must be at most high=1.5"):
        build.train_mix(config)
    # What is drawn can come from other images than those it is drawn for.
    blank = Images(1, empty=True)
    (batch,) = take(blank, 1, mix=Mix(mosaic=1.0), others=Images(4), batch_size=8)
    assert batch.valid.any() and not batch.index.any()
    with stream(Images(4)) as plain, stream(Images(4), mix=Mix()) as none:
        assert_equal([next(plain)], [next(none)])
