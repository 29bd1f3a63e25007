"""Photometric distortion against a literal, one-operation-at-a-time reference."""

import colorsys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdet.data.transforms.photometric import NO_DISTORTION, Distortion, distort, draw_distortion

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)


def saturate(x):
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def reference(image, d):
    """The Caffe transformer's sequence: 8 bits and saturation after every operation (float32)."""
    as_float = np.float32

    def brightness(x):
        return saturate(x.astype(as_float) + as_float(d.brightness))

    def contrast(x):
        return saturate(x * as_float(d.contrast))

    def saturation(x):
        if d.saturation == 1:
            return x
        hsv = cv2.cvtColor(x, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = saturate(hsv[..., 1] * as_float(d.saturation))
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

    def hue(x):
        if d.hue == 0:
            return x
        hsv = cv2.cvtColor(x, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = np.rint(hsv[..., 0] + as_float(d.hue)) % 180
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

    first = [brightness, contrast, saturation, hue]
    last = [brightness, saturation, hue, contrast]
    for operation in first if d.contrast_first else last:
        image = operation(image)
    return image


distortions = st.builds(
    Distortion,
    brightness=st.just(0.0) | st.floats(-32, 32),
    contrast=st.just(1.0) | st.floats(0.5, 1.5),
    saturation=st.just(1.0) | st.floats(0.5, 1.5),
    hue=st.just(0.0) | st.floats(-18, 18),
    contrast_first=st.booleans(),
)


@given(distortions)
def test_equals_reference(distortion):
    before = IMAGE.copy()
    result, expected = distort(IMAGE, distortion), reference(IMAGE, distortion)
    np.testing.assert_array_equal(IMAGE, before)
    assert result.dtype == np.uint8 and result.shape == IMAGE.shape
    if distortion.saturation != 1 and distortion.hue != 0:
        # One trip through 8-bit HSV instead of two.
        assert np.abs(result.astype(int) - expected).mean() < 2
    else:
        np.testing.assert_array_equal(result, expected)


def test_nothing_to_do_returns_the_image_itself():
    assert distort(IMAGE, NO_DISTORTION) is IMAGE


def test_views_of_an_image():
    distortion = Distortion(20.0, 1.3, 0.7, 9.0)
    part = IMAGE[5:20, 7:31]
    np.testing.assert_array_equal(
        distort(part, distortion), distort(np.ascontiguousarray(part), distortion)
    )


def test_orders_differ_where_the_spec_says():
    first = Distortion(contrast=1.5, saturation=0.5, contrast_first=True)
    assert (distort(IMAGE, first) != distort(IMAGE, first._replace(contrast_first=False))).any()


@pytest.mark.parametrize(("brightness", "expected"), [(32, 255), (-32, 218)])
def test_saturates_instead_of_wrapping(brightness, expected):
    assert (distort(np.full((2, 2, 3), 250, np.uint8), Distortion(brightness)) == expected).all()


@pytest.mark.parametrize("units", [-90, -45, -18, 17, 60, 90])
def test_hue_turns_the_colour_circle_both_ways(units):
    """Two degrees a unit, red to yellow to green, wrapping at both ends (colorsys as witness)."""
    red, green, blue = 200, 40, 40
    expected = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
    expected = colorsys.hsv_to_rgb((expected[0] + units / 180) % 1, *expected[1:])
    result = distort(np.full((1, 1, 3), (red, green, blue), np.uint8), Distortion(hue=units))
    np.testing.assert_allclose(result[0, 0], np.multiply(expected, 255), atol=3)


def test_draws():
    """Probabilities, ranges and independence of 4,000 draws (a standard error is 0.008)."""
    rng = np.random.default_rng(3)
    draws = np.array([draw_distortion(rng, 0.5) for _ in range(4000)], np.float64)
    fired = draws[:, :4] != NO_DISTORTION[:4]
    np.testing.assert_allclose(fired.mean(axis=0), 0.5, atol=0.04)
    np.testing.assert_allclose(draws[:, 4].mean(), 0.5, atol=0.04)
    np.testing.assert_allclose(np.corrcoef(np.c_[fired, draws[:, 4]].T), np.eye(5), atol=0.07)
    for column, (low, high) in enumerate([(-32, 32), (0.5, 1.5), (0.5, 1.5), (-18, 18)]):
        values = draws[fired[:, column], column]
        assert values.min() >= low and values.max() <= high
        quartiles = np.quantile(values, [0.25, 0.5, 0.75])
        expected = np.quantile([low, high], [0.25, 0.5, 0.75])
        np.testing.assert_allclose(quartiles, expected, atol=0.05 * (high - low))


def test_probability_zero_and_one():
    rng = np.random.default_rng(4)
    assert draw_distortion(rng, 0.0)[:4] == NO_DISTORTION[:4]
    always = draw_distortion(rng, 1.0)
    assert all(a != b for a, b in zip(always[:4], NO_DISTORTION[:4], strict=True))
