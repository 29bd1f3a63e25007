import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from jdet.evaluation import masks as masks_lib
from jdet.evaluation.masks import paste_masks

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
