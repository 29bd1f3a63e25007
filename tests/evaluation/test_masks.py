from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from jdet.data.segmentation import decode, encode, encode_part
from jdet.evaluation import masks as masks_lib
from jdet.evaluation.masks import average, paste_masks

# pycocotools' own decoding under NumPy 2; jdet only encodes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def decoded(rles):
    return [coco_mask.decode(rle).astype(bool) for rle in rles]


def plain_paste(mask, box, height, width, threshold=0.5):
    """Detectron2's way, pixel by pixel: grid_sample with align_corners=False and zeros around."""
    m, (x1, y1, x2, y2) = len(mask), box
    result = np.zeros((height, width), bool)
    padded = np.pad(np.asarray(mask, float), 1)
    for row in range(height):
        for column in range(width):
            v = (row + 0.5 - y1) / (y2 - y1) * m - 0.5
            u = (column + 0.5 - x1) / (x2 - x1) * m - 0.5
            i, j = int(np.floor(v)), int(np.floor(u))
            if not (-1 <= i < m and -1 <= j < m):
                continue
            a, b = v - i, u - j
            four = padded[i + 1 : i + 3, j + 1 : j + 3]
            value = np.array([1 - a, a]) @ four @ np.array([1 - b, b])
            result[row, column] = value >= threshold
    return result


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 7]), st.sampled_from([0.5, 0.3]))
def test_equals_bilinear_sampling_at_every_pixel(seed, m, threshold):
    """Also with boxes that are smaller than a pixel, or reach beyond the image."""
    rng = np.random.default_rng(seed)
    masks = rng.random((3, m, m)).astype(np.float32)
    corners = rng.uniform(-10, 20, (3, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.1, 20, (3, 2))], axis=1)
    found = decoded(paste_masks(masks, boxes, 16, 13, threshold=threshold))
    for one, mask, box in zip(found, masks, boxes, strict=True):
        np.testing.assert_array_equal(one, plain_paste(mask, box, 16, 13, threshold))


def test_torch_pastes_the_same():
    """Every pixel as by ``grid_sample``; torchvision's own way differs along outlines.

    It cuts boxes to whole pixels first and makes them a pixel longer.
    """
    golden = np.load(Path(__file__).parents[1] / "golden" / "paste_masks.npz")
    height, width = golden["size"].tolist()
    values = golden["grid_sample"]
    assert np.abs(values - 0.5).min() > 1e-5  # no pixel is decided by rounding
    found = np.stack(decoded(paste_masks(golden["masks"], golden["boxes"], height, width)))
    np.testing.assert_array_equal(found, values >= 0.5)
    theirs = np.unpackbits(golden["torchvision"])[: found.size].reshape(found.shape).astype(bool)
    overlap = (found & theirs).sum((1, 2)) / (found | theirs).sum((1, 2))
    assert overlap.min() > 0.8 and overlap.mean() > 0.9


@given(st.integers(0, 2**32 - 1))
def test_a_part_is_encoded_as_the_whole_image(seed):
    """To the same text, also where runs go on from column to column, and at all edges."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 12, 2)
    top, left = rng.integers(0, height), rng.integers(0, width)
    h, w = rng.integers(0, height - top + 1), rng.integers(0, width - left + 1)
    part = rng.random((h, w)) < rng.choice([0.3, 0.9, 1.1])
    whole = np.zeros((height, width), bool)
    whole[top : top + h, left : left + w] = part
    found = encode_part(part, int(top), int(left), int(height), int(width))
    assert found == encode(whole)
    np.testing.assert_array_equal(decode(found, int(height), int(width)), whole)


def test_a_mask_of_the_boxs_own_pixels_is_pasted_as_it_is():
    mask = np.random.default_rng(0).random((5, 5)) < 0.5
    (found,) = decoded(paste_masks(mask[None], np.array([[3, 2, 8, 7]]), 10, 12))
    expected = np.zeros((10, 12), bool)
    expected[2:7, 3:8] = mask
    np.testing.assert_array_equal(found, expected)


def test_a_full_mask_fills_its_box_and_no_more():
    for m in (1, 14, 28):
        (found,) = decoded(paste_masks(np.ones((1, m, m)), np.array([[10, 20, 52, 44]]), 64, 64))
        rows, columns = np.nonzero(found)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 43, 10, 51)
        # At corners two edges fade out at once.
        assert 42 * 24 - 4 * max(1, (42 / m / 2) * (24 / m / 2)) <= found.sum() <= 42 * 24


def test_boxes_without_area_or_outside_have_empty_masks():
    boxes = np.array([[5, 5, 5, 9], [30, 30, 40, 40], [-9, -9, -2, -2], [4, 4, 2, 2]], float)
    rles = paste_masks(np.ones((4, 3, 3)), boxes, 20, 20)
    assert [masks_lib.area(rle) for rle in rles] == [0, 0, 0, 0]
    assert paste_masks(np.zeros((0, 3, 3)), np.zeros((0, 4)), 20, 20) == ()


def test_the_average_is_that_of_the_masks_in_the_image():
    """In one frame it is the mean of the numbers; of other frames, each is looked up where it lies."""
    rng = np.random.default_rng(2)
    masks, box = rng.random((2, 6, 6)), np.array([3.0, 2.0, 15.0, 26.0])
    weights = np.array([0.9, 0.3])
    frames = np.stack([box, box])
    expected = (0.9 * masks[0] + 0.3 * masks[1]) / 1.2
    np.testing.assert_allclose(average(masks, frames, weights, box), expected, atol=1e-12)
    # Moved by one cell, two wide: the cells of one are those of the other further on.
    frames[1] = box + [2, 0, 2, 0]
    moved = np.pad(masks[1], ((0, 0), (1, 0)))[:, :6]
    expected = (0.9 * masks[0] + 0.3 * moved) / 1.2
    np.testing.assert_allclose(average(masks, frames, weights, box), expected, atol=1e-12)
    frames[1] = box + [100, 0, 100, 0]
    np.testing.assert_allclose(average(masks, frames, weights, box), 0.75 * masks[0], atol=1e-12)
