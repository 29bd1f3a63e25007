"""Polygons and run-length encodings: as of pycocotools where they are sound, else refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from jdet.data.segmentation import counts_of, encode, extent, run_ends, to_rle

# pycocotools' own decoding under NumPy 2; jdet only encodes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def random_mask(rng, height, width):
    """Speckles, stripes, everything or nothing: short runs and long ones."""
    kind = rng.integers(4)
    if kind == 0:
        return rng.random((height, width)) < rng.random()
    mask = np.zeros((height, width), bool)
    y, x = rng.integers(0, height), rng.integers(0, width)
    mask[y : y + rng.integers(1, height + 1), x : x + rng.integers(1, width + 1)] = True
    return mask if kind < 3 else ~mask


def column_runs(mask):
    """Lengths of runs down the columns, by going from pixel to pixel."""
    counts, value = [0], False
    for pixel in mask.T.reshape(-1).tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


@given(st.integers(0, 2**32 - 1))
def test_runs_are_those_of_pycocotools_in_every_form(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 90, 2).tolist()
    mask = random_mask(rng, height, width)
    rle, counts = encode(mask), column_runs(mask)
    assert json.loads(json.dumps(rle)) == rle
    for form in (rle, {**rle, "counts": rle["counts"].encode()}, {**rle, "counts": counts}):
        np.testing.assert_array_equal(counts_of(form), counts)
        assert to_rle(form, height, width) == rle
        places = np.arange(mask.size)
        inside = np.searchsorted(run_ends(form, height, width), places, side="right") % 2
        np.testing.assert_array_equal(inside.reshape(width, height).T, mask)
        x, y, w, h = coco_mask.toBbox(rle).tolist()
        expected = (x, y, x + w, y + h) if mask.any() else (0, 0, 0, 0)
        assert extent(form) == expected


def test_long_runs_of_a_large_image():
    """Numbers of several characters, and differences below zero."""
    mask = np.zeros((2048, 1570), bool)
    mask[100:1900, 7:1500] = True
    mask[5, 3] = True
    rle = encode(mask)
    assert counts_of(rle).sum() == mask.size and counts_of(rle)[1::2].sum() == mask.sum()


def test_every_form_of_coco_becomes_one_that_json_can_hold():
    mask = np.zeros((12, 10), np.uint8, order="F")
    mask[2:6, 3:9] = 1
    rle = coco_mask.encode(mask)
    counts = [2 + 3 * 12, *[4, 8] * 5, 4, 12 - 6 + 12]
    for form in (
        [[3, 2, 9, 2, 9, 6, 3, 6]],
        [3, 2, 9, 2, 9, 6, 3, 6],
        [[3, 2, 6, 2, 6, 6, 3, 6], [6, 2, 9, 2, 9, 6, 6, 6]],
        [[3, 2, 6, 6], [3, 2, 9, 2, 9, 6, 3, 6]],  # pycocotools: a box, and a polygon taken for one
        {"size": [12, 10], "counts": counts},
        rle,
        {**rle, "counts": rle["counts"].decode()},
    ):
        found = to_rle(form, 12, 10)
        assert json.loads(json.dumps(found)) == found
        np.testing.assert_array_equal(coco_mask.decode(found), mask)
        assert extent(form) == (3, 2, 9, 6)


TEXT = encode(np.eye(12, 10))["counts"]


@pytest.mark.parametrize(
    "segmentation, message",
    [
        ("circle", "polygons or a run-length encoding, not 'circle'"),
        ([], r"polygons or a run-length encoding, not \[\]"),
        (3, "polygons or a run-length encoding, not 3"),
        ({"counts": [1]}, "polygons or a run-length encoding, not {'counts'"),
        ({"size": [12, 10]}, "polygons or a run-length encoding, not {'size'"),
        ([[]], "three points at least"),
        ([[3, 2, 6, 6]], "three points at least"),
        ([3, 2, 6, 6], "three points at least"),
        ([[3, 2, 6, 6, 9]], "x y x y …, in numbers, not"),
        ([[3, 2, 6, 6, 9, "4"]], "x y x y …, in numbers, not"),
        ([[3, 2, 6, 6, 9, float("nan")]], "x y x y …, in numbers, not"),
        ([[3, 2, 6, 6, 9, 4], "abcdef"], "x y x y …, in numbers, not"),
        ({"size": [10, 12], "counts": [120]}, "encoding of 12x10 in an image of 10x12"),
        ({"size": [12, 10], "counts": [20, 99]}, "cover 119 pixels of 10x12 = 120"),
        ({"size": [12, 10], "counts": []}, "cover 0 pixels of"),
        ({"size": [12, 10], "counts": [130, -10]}, "the counts of a run-length encoding are"),
        ({"size": [12, 10], "counts": [60.5, 59.5]}, "the counts of a run-length encoding are"),
        ({"size": [12, 10], "counts": TEXT[:-1]}, "cover|no compressed"),
        ({"size": [12, 10], "counts": TEXT + "1"}, "cover 1[23].* pixels of 10x12"),
        ({"size": [12, 10], "counts": "o"}, "no compressed run-length encoding"),
        ({"size": [12, 10], "counts": "ü"}, "no compressed run-length encoding"),
        ({"size": [12, 10], "counts": "O"}, "negative length"),
    ],
)
def test_what_is_none_is_refused_in_words(segmentation, message):
    for read in (to_rle, run_ends, lambda form, *size: extent(form, size)):
        with pytest.raises(ValueError, match=message):
            read(segmentation, 12, 10)
