"""Masks in the frames of boxes, against the whole image's mask: cut out, and rendered with it."""

import itertools

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from jdet.data.pipeline import eval_batches, train_batches
from jdet.data.segmentation import encode
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.fit_crop import FitCrop
from jdet.data.transforms.geometry import Orientation
from jdet.data.transforms.instance_masks import box_bitmaps, turned
from jdet.data.transforms.keep_ratio import KeepRatio
from jdet.data.transforms.ssd import SSDAugment
from jdet.data.transforms.warp import Warp
from jdet.types import DataError, Example

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def cut_out(mask, box, side):
    """The plain form: the whole image's mask, looked up at the centre of every cell."""
    (x1, y1, x2, y2), result = box, np.zeros((side, side), np.uint8)
    for i, j in itertools.product(range(side), repeat=2):
        x, y = x1 + (j + 0.5) / side * (x2 - x1), y1 + (i + 0.5) / side * (y2 - y1)
        result[i, j] = mask[min(int(y), len(mask) - 1), min(int(x), mask.shape[1] - 1)]
    return result


@pytest.mark.parametrize("side", [5, 16])
def test_equal_to_the_whole_images_mask_cut_to_the_box(side):
    rng = np.random.default_rng(side)
    for _ in range(20):
        height, width = rng.integers(20, 70, 2).tolist()
        polygon = [rng.uniform(0, [width, height], (9, 2)).reshape(-1).round(2).tolist()]
        speckles = rng.random((height, width)) < 0.4
        counts = coco_mask.frPyObjects(polygon, height, width)
        whole = [coco_mask.decode(coco_mask.merge(counts)), speckles, np.zeros_like(speckles)]
        corners = np.sort(rng.uniform(0, [width, height], (3, 2, 2)), axis=1)
        boxes = corners.reshape(3, 4).astype(np.float32) + [0, 0, 0.1, 0.1]
        found = box_bitmaps([polygon, encode(speckles), None], boxes, (height, width), side)
        assert found.dtype == np.uint8 and found.shape == (3, side, side)
        for one, mask, box in zip(found, whole, boxes, strict=True):
            np.testing.assert_array_equal(one, cut_out(mask, box, side))


def test_a_box_of_whole_pixels_has_its_own_mask():
    mask = np.random.default_rng(1).random((30, 40)) < 0.5
    found = box_bitmaps([encode(mask)], np.array([[7, 3, 27, 23]]), (30, 40), 20)[0]
    np.testing.assert_array_equal(found, mask[3:23, 7:27])
    double = box_bitmaps([encode(mask)], np.array([[7, 3, 27, 23]]), (30, 40), 40)[0]
    np.testing.assert_array_equal(double, np.kron(found, np.ones((2, 2), np.uint8)))
    assert box_bitmaps([], np.zeros((0, 4)), (30, 40), 7).shape == (0, 7, 7)


def test_turning_is_that_of_images():
    bitmap = np.arange(9).reshape(1, 3, 3)
    for flags in itertools.product((False, True), repeat=3):
        expected = bitmap[0].astype(np.uint8)
        expected = cv2.flip(expected, 1) if flags[0] else expected
        expected = cv2.flip(expected, 0) if flags[1] else expected
        expected = cv2.rotate(expected, cv2.ROTATE_90_CLOCKWISE) if flags[2] else expected
        np.testing.assert_array_equal(turned(bitmap, Orientation(*flags))[0], expected)


class Blobs:
    """White blobs on black, up to three in an image, the masks of which are where it is white."""

    class_names = ("blob",)

    def __init__(self, count=12, masks=True, objects=3):
        self.count, self.masks, self.objects = count, masks, objects

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        height, width = rng.integers(180, 300, 2).tolist()
        image = np.zeros((height, width, 3), np.uint8)
        boxes, masks = [], []
        for k in range(index % (self.objects + 1)):
            mask = np.zeros((height, width), np.uint8)
            if self.objects <= 3:  # side by side, so that no pixel is that of two
                centre = ((k + 0.5) * width / 3, rng.uniform(0.3, 0.7) * height)
                axes = (rng.uniform(18, width / 6 - 1), rng.uniform(25, 50))
                points = cv2.ellipse2Poly(
                    tuple(map(int, centre)), tuple(map(int, axes)), 0, 0, 270, 5
                )
                cv2.fillPoly(mask, [points], 1)
            else:
                mask[k % height, k % width] = 1
            image[mask > 0] = 255
            rows, columns = np.nonzero(mask)
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            masks.append(encode(mask))
        return Example(
            id=str(index),
            image=image,
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.zeros(len(boxes), np.int32),
            ignore=np.zeros(len(boxes), bool),
            areas=np.ones(len(boxes), np.float32),
            masks=tuple(masks) if self.masks else None,
        )


def batches(augment, resize, count, source=None, **options):
    options = dict(max_boxes=3, batch_size=6, seed=3, mask_size=28) | options
    with train_batches(source or Blobs(), augment=augment, resize=resize, **options) as stream:
        return [next(stream) for _ in range(count)]


NOTHING = dict(photometric=0.0, expand=0.0, crop=False, flip=0.0, interpolation="linear")


@pytest.mark.parametrize(
    "changes, resize, least",
    [
        (dict(), Warp(192), 0.98),
        (dict(flip=1.0), Warp(192), 0.98),
        (dict(flip_vertical=0.5, rotate=1.0, flip=0.5), Warp(192), 0.98),
        (dict(crop=True, crop_share=0.2), Warp(192), 0.96),
        (dict(expand=1.0, expand_ratio=2.0), Warp(320), 0.95),
        (dict(expand=1.0, expand_ratio=2.0, crop=True, flip=0.5), Warp(320), 0.95),
        (dict(flip=0.5, crop=True), KeepRatio((192,), long=320), 0.96),
        (dict(flip=0.5), FitCrop(192, low=1.2, high=2.0), 0.95),
    ],
)
def test_they_lie_where_the_rendered_image_has_the_object(changes, resize, least):
    """The white of the image that the network sees, looked up in the frame of each box."""
    same = total = objects = full = 0
    for batch in batches(SSDAugment(mean=(0, 0, 0), **{**NOTHING, **changes}), resize, 8):
        assert not batch.masks[~batch.valid].any()
        for row, k in np.argwhere(batch.valid):
            white = batch.images[row, ..., 0] >= 128
            shown = cut_out(white, batch.boxes[row, k], 28)
            same += int((shown == batch.masks[row, k]).sum())
            total += shown.size
            objects += 1
            full += batch.masks[row, k].mean() in (
                0,
                1,
            )  # blobs with a bite fill no box, but parts may
    assert objects > 40 and full < objects / 4 and same / total >= least, same / total


def test_a_flip_mirrors_and_a_resize_changes_nothing():
    def only(resize, **changes):
        return batches(SSDAugment(**{**NOTHING, **changes}), resize, 2)

    plain, mirrored = only(Warp(64)), only(Warp(64), flip=1.0)
    for one, other, larger in zip(plain, mirrored, only(Warp(200)), strict=True):
        np.testing.assert_array_equal(other.masks, one.masks[..., ::-1])
        np.testing.assert_array_equal(larger.masks, one.masks)


def test_without_need_batches_are_as_they_were():
    augment, resize = SSDAugment(), Warp(64)
    for one, bare, none in zip(
        batches(augment, resize, 3),
        batches(augment, resize, 3, mask_size=0),
        batches(augment, resize, 3, Blobs(masks=False)),
        strict=True,
    ):
        assert bare.masks is None and not none.masks.any()
        for name in ("images", "boxes", "labels", "valid", "ignore", "image_sizes", "index"):
            for other in (bare, none):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    with eval_batches(Blobs(4), resize=resize, batch_size=4, max_boxes=3) as stream:
        assert next(stream).masks is None


def test_of_four_hundred_objects_the_masks_stay_with_their_boxes():
    class Many(Blobs):
        def __getitem__(self, index):
            return super().__getitem__(400)

    (batch,) = batches(
        Augment(), Warp(64), 1, Many(1, objects=400), max_boxes=512, batch_size=1, mask_size=7
    )
    assert batch.valid.sum() == 400 and batch.masks.shape == (1, 512, 7, 7)
    assert (batch.masks[0, :400] == 1).all() and not batch.masks[0, 400:].any()


def test_one_object_without_a_mask_among_others():
    class Some(Blobs):
        def __getitem__(self, index):
            example = super().__getitem__(3)
            return example._replace(masks=(None, *example.masks[1:]))

    (batch,) = batches(Augment(), Warp(64), 1, Some(1), batch_size=1)
    assert batch.masks.any((0, 2, 3)).tolist() == [False, True, True]


def test_a_mask_of_another_image_is_named():
    class Wrong(Blobs):
        def __getitem__(self, index):
            example = super().__getitem__(3)
            return example._replace(masks=(*example.masks[:2], encode(np.ones((5, 4)))))

    with pytest.raises(DataError, match="image 3: a run-length encoding of 4x5 in an image of"):
        batches(Augment(), Warp(64), 1, Wrong(1), batch_size=1)
