"""Affine maps, perspective and cut-out: pixels, boxes and masks go the same way, for images of any kind."""

import itertools

import numpy as np
import pytest

from jdet.data.segmentation import decode, encode
from jdet.data.transforms import perspective
from jdet.data.transforms.element import Element
from jdet.data.transforms.finish import Finish
from jdet.data.transforms.geometry import Rect
from jdet.data.transforms.ssd import SSDAugment
from jdet.data.transforms.warp import Warp
from jdet.types import ConfigError
from tests.data.images import PLAIN, Images, assert_equal, stream, take

ALL = dict(rotate=30.0, scale=0.3, shear=15.0, translate=0.1, perspective=0.2)
NOTHING = dict.fromkeys(ALL, 0.0)


def rectangle(x1=40, y1=30, x2=100, y2=70, size=(120, 160)):
    image = np.zeros((*size, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    polygon = [float(v) for v in (x1, y1, x2, y1, x2, y2, x1, y2)]
    return Element(
        image=image,
        boxes=np.array([[x1, y1, x2, y2]], np.float32),
        labels=np.array([1], np.int32),
        ignore=np.array([False]),
        masks=([polygon],),
    )


def drawn(seed, element, **changes):
    rng = np.random.default_rng(seed)
    return perspective.draw_map(rng, element.image.shape[:2], **{**NOTHING, **changes})


def test_without_anything_drawn_a_map_changes_nothing():
    element = rectangle()
    matrix = drawn(0, element)
    np.testing.assert_allclose(matrix, np.eye(3), atol=1e-12)
    noise = np.random.default_rng(0).integers(0, 256, (33, 47, 3)).astype(np.uint8)
    np.testing.assert_array_equal(perspective.painted(noise, matrix, (), (9.0,) * 3), noise)


@pytest.mark.parametrize("dtype, channels", [("uint8", 3), ("uint16", 1), ("float32", 6)])
def test_a_shift_by_whole_pixels_is_exact_and_filled(dtype, channels):
    image = (np.random.default_rng(0).random((20, 30, channels)) * 250).astype(dtype)
    matrix = np.array([[1, 0, 4.0], [0, 1, -3.0], [0, 0, 1]])
    fill = tuple(float(v) for v in range(channels))
    hole = Rect(10, 2, 13, 9)
    given = image.copy()
    found = perspective.painted(image, matrix, (hole,), fill)
    expected = np.full_like(image, 0) + np.array(fill, dtype)
    expected[:-3, 4:] = image[3:, :-4]
    expected[2:9, 10:13] = fill
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == image.dtype
    np.testing.assert_array_equal(image, given)


@pytest.mark.parametrize("seed", range(8))
def test_boxes_and_masks_lie_around_the_mapped_pixels(seed):
    element = rectangle()
    bitmap = (element.image[..., 0] > 0).astype(np.uint8)
    both = element._replace(
        boxes=np.repeat(element.boxes, 2, 0),
        labels=np.array([1, 2]),
        ignore=np.zeros(2, bool),
        masks=(element.masks[0], encode(bitmap)),
    )
    matrix = drawn(seed, both, **ALL)
    moved = perspective.mapped(both, matrix, share=0.0, side=0.0)
    pixels = perspective.painted(both.image, matrix, (), (0.0,) * 3)[..., 0] > 127
    columns, rows = np.flatnonzero(pixels.any(0)), np.flatnonzero(pixels.any(1))
    tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(moved.boxes, [tight] * 2, atol=2.0)
    for mask in moved.masks:
        inside = decode(mask, 120, 160).astype(bool)
        assert (inside & pixels).sum() / (inside | pixels).sum() > 0.95
    # The network input shows the same.
    fields = Finish(Warp(160), 2, (0.0,) * 3, mask_size=28)(moved._replace(shape=(120, 160))).fields
    np.testing.assert_array_equal(fields.images[..., 0] > 127, pixels)
    np.testing.assert_allclose(fields.boxes, moved.boxes, atol=1e-3)
    assert fields.masks[0].mean() > 0.3


def test_objects_are_dropped_by_share_and_side():
    element = rectangle()
    left = np.array([[1, 0, -80.0], [0, 1, 0], [0, 0, 1]])  # 20 of 60 columns stay
    counts = [len(perspective.mapped(element, left, share=s, side=0).boxes) for s in (0.3, 0.4)]
    assert counts == [1, 0]
    counts = [len(perspective.mapped(element, left, share=0, side=s).boxes) for s in (20, 21)]
    assert counts == [1, 0]
    gone = perspective.mapped(element, left - [[0, 0, 60], [0, 0, 0], [0, 0, 0]], share=0, side=0)
    assert gone.masks == () and gone.boxes.shape == (0, 4)


def test_masks_of_tiles_are_in_pixels_of_the_whole_image():
    element = rectangle()
    bitmap = (element.image[..., 0] > 0).astype(np.uint8)
    tile = element._replace(
        image=element.image[20:100, 30:130],
        boxes=element.boxes - [30, 20, 30, 20],
        cut_from=(20, 30, 120, 160),
    )
    matrix = drawn(3, tile, **ALL)
    pixels = perspective.painted(tile.image, matrix, (), (0.0,) * 3)[..., 0] > 127
    for mask in (element.masks[0], encode(bitmap)):
        moved = perspective.mapped(tile._replace(masks=(mask,)), matrix, share=0, side=0)
        inside = decode(moved.masks[0], 80, 100).astype(bool)
        assert moved.cut_from is None and (inside & pixels).sum() > 0.95 * (inside | pixels).sum()


def test_holes_are_squares_of_their_size_in_the_image():
    rng, sides = np.random.default_rng(0), []
    for _ in range(200):
        holes = perspective.draw_holes(rng, (100, 200), count=3, side=0.4)
        assert 1 <= len(holes) <= 3
        for x0, y0, x1, y1 in holes:
            assert 0 <= x0 <= x1 <= 200 and 0 <= y0 <= y1 <= 100
            if x0 > 0 and y0 > 0 and x1 < 200 and y1 < 100:
                assert abs((x1 - x0) - (y1 - y0)) <= 1
                sides.append(x1 - x0)
    assert 19 <= min(sides) < 25 and 35 < max(sides) <= 41


def test_in_the_stream():
    """Off, nothing is drawn; on, the others draw as before, the fill is undistorted, and runs resume."""
    off = SSDAugment()
    assert "warp" not in off.operations(Warp(32)) and "cutout" not in off.operations(Warp(32))
    on = SSDAugment(**{**PLAIN, "warp": 1.0, "cutout": 1.0, "photometric": 1.0})
    assert list(on.operations(Warp(32)))[:2] == ["warp", "cutout"]
    whole = take(Images(8), 4, augment=on)
    with stream(Images(8), augment=on, start=2) as batches:
        assert_equal(list(itertools.islice(batches, 2)), whole[2:])
    filled = [
        (image == np.array([123, 117, 104])).all(-1).sum() for b in whole for image in b.images
    ]
    assert np.mean(np.array(filled) > 20) > 0.9
    nothing = SSDAugment(
        **{**PLAIN, "warp": 1.0},
        **{f"warp_{key}": 0.0 for key in ("rotate", "scale", "shear", "translate", "perspective")},
        warp_share=0.0,
        warp_side=0.0,
    )
    plain = take(Images(8), 3, augment=SSDAugment(**PLAIN))
    for ours, theirs in zip(take(Images(8), 3, augment=nothing), plain, strict=True):
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-4)
    with pytest.raises(ConfigError, match="warp_perspective=0.5; it must be in 0 … 0.4"):
        SSDAugment(warp_perspective=0.5)
