"""Large-scale jitter against a plain reference on whole pixels, with masks, and what is refused."""

import cv2
import numpy as np
import pytest

from jdet.data.segmentation import encode
from jdet.data.transforms.element import Element
from jdet.data.transforms.finish import Finish, locate
from jdet.data.transforms.fit_crop import FitCrop
from jdet.data.transforms.keep_ratio import KeepRatio
from jdet.data.transforms.large_scale_jitter import LargeScaleJitter
from jdet.data.transforms.warp import Warp
from jdet.types import ConfigError, DataError

SIDE = 64
AUGMENT = LargeScaleJitter()
SQUARE = KeepRatio(short=(SIDE,), long=SIDE, shapes=((SIDE, SIDE),))


def reference(image, boxes, alpha, places, flip, kind):
    """The operations of MMDetection one after the other: resize, crop, drop, flip, pad with zeros."""
    height, width = image.shape[:2]
    target = int(SIDE * alpha)
    factor = target / max(height, width)
    new = [max(int(x * factor + 0.5), 1) for x in (height, width)]
    image = cv2.resize(image, (new[1], new[0]), interpolation=kind)
    image = image.reshape(*new, -1)
    boxes = boxes * np.array([new[1] / width, new[0] / height] * 2)
    rows, columns = min(SIDE, new[0]), min(SIDE, new[1])
    y, x = int(places[0] * (new[0] - rows + 1)), int(places[1] * (new[1] - columns + 1))
    image = image[y : y + rows, x : x + columns]
    boxes = np.clip(boxes - [x, y, x, y], 0, [columns, rows, columns, rows])
    keep = (boxes[:, 2:] - boxes[:, :2] >= 0.01).all(axis=1)
    if flip:
        image = image[:, ::-1]
        boxes = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [columns, 0, columns, 0]
    padded = np.zeros((SIDE, SIDE, image.shape[2]), image.dtype)
    padded[:rows, :columns] = image
    return padded, boxes, keep, (rows, columns)


def jittered(element, seed, augment=AUGMENT, resize=SQUARE):
    """The element, and the numbers that were drawn for it."""
    drawn = []
    for name, operation in augment.operations(resize).items():
        element = operation(element, np.random.default_rng([seed, len(name)]))
        drawn.append(np.random.default_rng([seed, len(name)]).random(3))
    (alpha, *places), flip = drawn[0], drawn[1][0] < augment.flip
    return element, (augment.low + (augment.high - augment.low) * alpha, places, flip)


@pytest.mark.parametrize("channels, dtype", [(3, "uint8"), (1, "uint16"), (5, "float32")])
def test_images_and_boxes_are_those_of_the_reference(channels, dtype):
    rng, alphas, cut, gone = np.random.default_rng(channels), [], 0, 0
    finish = Finish(SQUARE, 8, (0.0,) * channels, dtype)
    for seed in range(120):
        height, width = rng.integers(20, 200, 2)
        image = rng.integers(0, 256, (height, width, channels)).astype(dtype)
        low = rng.uniform(0, 1, (8, 2)) * (width, height)
        boxes = np.concatenate([low, low + rng.uniform(0, 60, (8, 2))], 1)
        boxes = np.clip(boxes, 0, [width, height] * 2).astype(np.float32)
        labels = rng.integers(0, 9, 8).astype(np.int32)
        element = Element(image=image, boxes=boxes, labels=labels, ignore=np.zeros(8, bool))
        # Linear at every scale, as the reference; by default images are shrunk as at evaluation.
        element = element._replace(interpolation=cv2.INTER_LINEAR)
        element, (alpha, places, flip) = jittered(element, seed)
        found = finish(element).fields
        images, expected, keep, content = reference(
            image, boxes.astype(np.float64), alpha, places, flip, cv2.INTER_LINEAR
        )
        np.testing.assert_allclose(found.images, images, atol=0.01)
        assert found.images.dtype == dtype and tuple(found.image_sizes) == content
        np.testing.assert_array_equal(found.labels[found.valid], labels[keep])
        np.testing.assert_allclose(found.boxes[found.valid], expected[keep], atol=1e-3)
        alphas.append(alpha)
        cut, gone = cut + (max(content) == SIDE), gone + (~keep).sum()
    assert min(alphas) < 0.2 and max(alphas) > 1.9 and cut > 30 and gone > 30


@pytest.mark.parametrize("shift", [0, 7])
def test_the_box_of_a_cut_object_is_that_of_its_mask(shift):
    """At a factor of 2 exactly: rows and columns of the part, and of the mask, are looked up."""
    finish = Finish(SQUARE, 1, (0.0,) * 3, mask_size=8)
    augment = LargeScaleJitter(low=2.0, high=2.0)
    triangle = np.zeros((SIDE + shift, SIDE + shift), np.uint8)
    points = np.array([[5, 60], [60, 5], [60, 60]]) + shift
    cv2.fillPoly(triangle, [points.astype(np.int32)], 1)
    y, x = (np.flatnonzero(triangle.any(axis)) for axis in (1, 0))
    whole = np.array([[x[0], y[0], x[-1] + 1, y[-1] + 1]], np.float32) - shift
    dropped = 0
    for seed in range(40):
        element = Element(
            image=np.zeros((SIDE, SIDE, 3), np.uint8),
            boxes=whole,
            labels=np.zeros(1, np.int32),
            ignore=np.zeros(1, bool),
            masks=(encode(triangle) if seed % 4 else None,),
            cut_from=(shift, shift, *triangle.shape) if shift else None,
        )
        element, (_, _, flip) = jittered(element, seed, augment)
        found, window = finish(element).fields, element.window
        assert window.size == (2 * SIDE, 2 * SIDE)
        big = np.kron(triangle[shift:, shift:], np.ones((2, 2), np.uint8))
        seen = big[window.y : window.y + SIDE, window.x : window.x + SIDE]
        if not seed % 4:  # no mask: all of the box that is seen
            corner = np.array([window.x, window.y] * 2)
            x1, y1, x2, y2 = np.clip(2 * whole[0] - corner, 0, SIDE)
        elif seen.any():
            y, x = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
            x1, y1, x2, y2 = x[0], y[0], x[-1] + 1, y[-1] + 1
            assert found.masks.any()
        else:
            dropped += 1
            assert not found.valid.any()
            continue
        expected = (SIDE - x2, y1, SIDE - x1, y2) if flip else (x1, y1, x2, y2)
        np.testing.assert_allclose(found.boxes[0], expected, atol=1e-4)
    assert dropped < 20


def test_a_bad_mask_names_its_image():
    bad = {"size": [9, 9], "counts": [81]}
    element = Element(
        id="seven",
        image=np.zeros((64, 64, 3), np.uint8),
        boxes=np.array([[0, 0, 64, 64]], np.float32),
    )
    augment = LargeScaleJitter(low=2.0, high=2.0)
    with pytest.raises(DataError, match="image seven"):
        jittered(element._replace(masks=(bad,)), 0, augment)


@pytest.mark.parametrize(
    "alpha, size, part", [(0.1, (77, 102), (77, 102)), (2.0, (1536, 2048), (1024, 1024))]
)
def test_sizes_of_the_documentation(alpha, size, part):
    resize = KeepRatio(short=(1024,), long=1024, shapes=((1024, 1024),))
    augment = LargeScaleJitter(low=alpha, high=alpha)
    element = Element(image=np.zeros((480, 640, 3), np.uint8))
    element, _ = jittered(element, 0, augment, resize)
    assert (element.window.size, element.window.part) == (size, part)
    assert locate(element, resize).shape == (1024, 1024)
    broken, _ = jittered(Element(problem="broken"), 0)
    assert broken.window is None


@pytest.mark.parametrize(
    "resize", [Warp(64), FitCrop(64), KeepRatio(short=(64, 96), long=128)], ids=type
)
def test_scales_are_drawn_once(resize):
    with pytest.raises(ConfigError, match="one length in config.resize.short"):
        LargeScaleJitter().operations(resize)


@pytest.mark.parametrize("values", [dict(low=3.0), dict(low=0.0), dict(high=11.0), dict(flip=2.0)])
def test_bad_settings_are_refused(values):
    (key,) = values
    with pytest.raises(ConfigError, match=f"config.augment.{key}="):
        LargeScaleJitter(**values)
