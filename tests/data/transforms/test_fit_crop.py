"""The input of direct pre-training against a plain reference, and images drawn again."""

import cv2
import numpy as np
import pytest

from jdet import build
from jdet.config import get_defaults
from jdet.data import pipeline
from jdet.data.segmentation import encode
from jdet.data.transforms import geometry
from jdet.data.transforms.element import Element
from jdet.data.transforms.finish import Finish, locate
from jdet.data.transforms.fit_crop import FitCrop
from jdet.data.transforms.ssd import SSDAugment
from jdet.types import ConfigError, DataError, Example

FILL = (123.0, 117.0, 104.0)
FLIP = SSDAugment(photometric=0.0, expand=0.0, crop=False, interpolation="linear")


CELLS = 5
"""Side of the masks in the frames of boxes."""


def reference(image, boxes, labels, masks, side, alpha, place, flip, square):
    """The released code's steps, one after the other: resize, crop, flip, pad.

    A mask is read at the centres of the cells of its box, wherever they come from in the image; -1 where
    that is on the seam of two pixels, up to rounding.
    """
    height, width = image.shape[:2]
    target = int(side * alpha)
    factor = target / max(height, width)
    new = [max(int(x * factor + 0.5), 1) for x in (height, width)]
    new = [target, target] if square else new
    image = cv2.resize(image, (new[1], new[0]), interpolation=cv2.INTER_LINEAR)
    boxes = boxes * np.array([new[1] / width, new[0] / height] * 2)
    boxes = np.clip(boxes, 0, np.array([new[1], new[0]] * 2))
    rows, columns = min(side, new[0]), min(side, new[1])
    y, x = int(place[0] * (new[0] - rows + 1)), int(place[1] * (new[1] - columns + 1))
    image = image[y : y + rows, x : x + columns]
    boxes = np.clip(boxes - [x, y, x, y], 0, [columns, rows, columns, rows])
    keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if flip:
        image = image[:, ::-1]
        boxes = np.stack(
            [columns - boxes[:, 2], boxes[:, 1], columns - boxes[:, 0], boxes[:, 3]], 1
        )
    padded = np.empty((side, side, 3), np.uint8)
    padded[:] = FILL
    padded[:rows, :columns] = image
    bitmaps = []
    for (x1, y1, x2, y2), mask in zip(boxes[keep], masks[keep], strict=True):
        steps = (np.arange(CELLS) + 0.5) / CELLS
        across, down = x1 + steps * (x2 - x1), y1 + steps * (y2 - y1)
        across = columns - across if flip else across
        across, down = (across + x) * width / new[1], (down + y) * height / new[0]
        seam_x, seam_y = (np.abs(places - np.round(places)) < 1e-4 for places in (across, down))
        bitmap = mask[np.ix_(down.astype(int), across.astype(int))]
        bitmaps.append(np.where(seam_y[:, None] | seam_x, -1, bitmap))
    return padded, boxes[keep], labels[keep], np.array(bitmaps), (rows, columns)


@pytest.mark.parametrize("square", [False, True])
def test_500_images_are_those_of_the_reference(square):
    rng, side = np.random.default_rng(0), 64
    resize = FitCrop(side, square=square)
    finish, kept, cut = Finish(resize, 8, FILL, mask_size=CELLS), 0, 0
    cells, seams = 0, 0
    for seed in range(500):
        height, width = rng.integers(20, 200, 2)
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        low = rng.uniform(0, 1, (8, 2)) * (width, height)
        boxes = np.concatenate([low, low + rng.uniform(0, 60, (8, 2))], 1)
        boxes = np.clip(boxes, 0, [width, height] * 2).astype(np.float32)
        labels = rng.integers(0, 9, 8).astype(np.int32)
        blocks = rng.random((8, -(-height // 16), -(-width // 16))) < 0.5
        masks = blocks.repeat(16, 1).repeat(16, 2)[:, :height, :width]
        element = Element(
            image=image,
            boxes=boxes,
            labels=labels,
            ignore=np.zeros(8, bool),
            masks=tuple(encode(mask) for mask in masks),
        )
        drawn = {}  # the numbers that each operation draws
        for name, operation in FLIP.operations(resize).items():
            own = [seed, len(drawn)]
            element = operation(element, np.random.default_rng(own))
            drawn[name] = np.random.default_rng(own).random(3)
        found = finish(element).fields
        alpha, *place = drawn["fit_crop"]
        alpha, flip = 0.8 + 0.4 * alpha, drawn["flip"][0] < 0.5
        images, expected, expected_labels, bitmaps, content = reference(
            image, boxes.astype(np.float64), labels, masks, side, alpha, place, flip, square
        )
        np.testing.assert_array_equal(found.images, images)
        assert found.valid.sum() == len(expected)
        np.testing.assert_allclose(found.boxes[found.valid], expected, atol=1e-4)
        np.testing.assert_array_equal(found.labels[found.valid], expected_labels)
        assert tuple(found.image_sizes) == content
        clear = bitmaps >= 0
        np.testing.assert_array_equal(found.masks[: len(expected)][clear], bitmaps[clear])
        assert not found.masks[len(expected) :].any()
        cells, seams = cells + found.masks.sum(), seams + (~clear).sum()
        kept, cut = kept + len(expected), cut + (len(expected) < 8)
    assert kept > 3000 and cut > 50  # there was something to compare
    assert seams < 1e-3 * kept * CELLS**2 and 0.45 < cells / (kept * CELLS**2) < 0.55


@pytest.mark.parametrize(
    "alpha, size, part", [(0.8, (269, 358), (269, 358)), (1.2, (403, 537), (403, 448))]
)
def test_sizes_of_the_paper(alpha, size, part):
    resize = FitCrop(448, low=alpha, high=alpha)
    assert resize.content(480, 640, (448, 448)) == (336, 448)
    element = Element(image=np.zeros((480, 640, 3), np.uint8))
    (operation,) = resize.operations().values()
    window = operation(element, np.random.default_rng(0)).window
    assert window.size == size and window.part == part and window.y == 0
    assert 0 <= window.x <= size[1] - part[1]


def test_a_part_is_taken_of_what_other_operations_have_cut_out():
    image = np.arange(100 * 80 * 3, dtype=np.uint32).reshape(100, 80, 3).astype(np.uint8)
    element = Element(image=image, boxes=np.array([[50, 60, 70, 90]], np.float32))
    resize = FitCrop(32, low=2.0, high=2.0)
    (operation,) = resize.operations().values()
    half = operation(element._replace(patch=(0.5, 0.5, 1.0, 1.0)), np.random.default_rng(1))
    found = locate(half, resize)
    assert half.window.size == (64, 51) and found.content == (32, 32)
    boxes = geometry.move_boxes(
        element.boxes, found.placement, (10**6, 10**6), orientation=geometry.UPRIGHT
    )
    exact = (np.array([10, 10]) * (51 / 40, 64 / 50) - (half.window.x, half.window.y)).clip(0)
    np.testing.assert_allclose(boxes[0, :2], exact, atol=1e-4)


class Corner:
    """Images of which the object, where there is one, is a speck in the corner."""

    class_names = ("a",)

    def __init__(self, with_objects):
        self.with_objects = with_objects

    def __len__(self):
        return 12

    def __getitem__(self, index):
        boxes = np.array([[0, 0, 40, 40]], np.float32)[: index in self.with_objects]
        count = len(boxes)
        return Example(
            id=str(index),
            image=np.full((40, 40, 3), index, np.uint8),
            boxes=boxes,
            labels=np.zeros(count, np.int32),
            ignore=np.zeros(count, bool),
            areas=np.ones(count, np.float32),
        )


def batches(source, start=0, redraws=50):
    return pipeline.train_batches(
        source,
        resize=FitCrop(32, redraws=redraws),
        augment=FLIP,
        max_boxes=2,
        batch_size=4,
        seed=0,
        start=start,
        threads=0,
    )


def test_images_without_an_object_are_drawn_again_alike_wherever_the_stream_begins():
    stream = batches(Corner({3, 7}))
    first = [next(stream) for _ in range(6)]
    assert {int(i) for batch in first for i in batch.index} == {3, 7}
    assert all(batch.valid.any(1).all() for batch in first)
    later = batches(Corner({3, 7}), start=4)
    for batch in first[4:]:
        other = next(later)
        np.testing.assert_array_equal(other.images, batch.images)
        np.testing.assert_array_equal(other.boxes, batch.boxes)
    plain = next(batches(Corner({3, 7}), redraws=0))
    assert not plain.valid.any(1).all()


def test_few_redraws_end_with_the_first_image_and_a_set_without_objects_is_refused():
    found = [next(batches(Corner({3}), redraws=1)) for _ in range(3)]
    assert not all(batch.valid.any(1).all() for batch in found)
    with pytest.raises(DataError, match="none of the 12 .*redraws=0"):
        batches(Corner(set()))


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("input_size", 450, "config.input_size=450.*multiple of 32.*448"),
        ("low", 2.0, "resize.low=2.0"),
        ("redraws", -1, "resize.redraws=-1"),
    ],
)
def test_bad_settings_are_refused(key, value, message):
    c = get_defaults()
    c.input_size = 448
    c.resize = build.group("resize", "fit_crop")
    if key == "input_size":
        c.input_size = value
    else:
        c.resize[key] = value
    with pytest.raises(ConfigError, match=message):
        build.resize(c)
