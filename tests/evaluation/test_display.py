"""Images of any type and number of channels as uint8 RGB for people."""

import warnings

import numpy as np
import pytest

from jdet.evaluation.display import NOTHING, Display
from jdet.types import ConfigError

RAMP = np.arange(101.0)[None, :, None]  # [1, 101, 1]; percentiles are the values themselves


def test_8_bit_images_are_shown_as_they_are():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    assert Display()(rgb) is rgb
    grey = rgb[..., :1]
    np.testing.assert_array_equal(Display(colour="gray")(grey), np.repeat(grey, 3, axis=2))
    np.testing.assert_array_equal(Display(bands=(2, 0, 1))(rgb), rgb[..., [2, 0, 1]])
    np.testing.assert_array_equal(Display(bands=(1,))(rgb), np.repeat(rgb[..., 1:2], 3, axis=2))


@pytest.mark.parametrize(
    "dtype, low, step", [("uint16", 30_000, 1), ("float32", 0.25, 2**-12), ("uint16", 0, 655)]
)
def test_percentiles_become_black_and_white(dtype, low, step):
    image = (low + step * RAMP).astype(dtype)
    shown = Display(percentiles=(10.0, 90.0), colour="gray")(image)
    assert shown.dtype == np.uint8 and shown.shape == (1, 101, 3)
    expected = np.clip(np.rint((np.arange(101) - 10) * 255 / 80), 0, 255)
    np.testing.assert_allclose(shown[0, :, 1].astype(float), expected, atol=1)
    assert (shown[..., 0] == shown[..., 2]).all()


def test_channels_of_rgb_are_stretched_alike_and_bands_by_themselves():
    image = np.concatenate([RAMP, RAMP / 2, RAMP / 4], axis=2).astype(np.float32)
    together = Display(percentiles=(0.0, 100.0))(image)
    assert np.abs(together.max(axis=(0, 1)) - (255, 127.5, 63.75)).max() < 1
    apart = Display(percentiles=(0.0, 100.0), colour="bands")(image)
    assert apart.max(axis=(0, 1)).tolist() == [255] * 3


def test_two_channels_are_magenta_and_green_and_chosen_bands_red_green_and_blue():
    image = np.concatenate([RAMP, 100 - RAMP], axis=2).astype(np.uint16)
    shown = Display(colour="bands")(image)
    assert shown[0, -1].tolist() == [255, 0, 255] and shown[0, 0].tolist() == [0, 255, 0]
    many = np.concatenate([RAMP * 0, RAMP, 100 - RAMP, RAMP, RAMP], axis=2).astype(np.uint16)
    shown = Display(bands=(4, 2, 1), colour="bands")(many)
    assert shown[0, -1].tolist() == [255, 0, 255]
    for bands in ((4, 2, 5), (5,)):
        with pytest.raises(ConfigError, match=r"drawn_bands=.*have 5 channel\(s\)"):
            Display(bands=bands, colour="bands")(many)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_constant_images_and_images_without_a_valid_value(dtype, channels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flat = np.full((3, 4, channels), 7, dtype)
        shown = Display(colour="bands")(flat)
        assert shown.shape == (3, 4, 3) and len(np.unique(shown)) == 1
        if dtype == "float32":
            for value in (np.nan, np.inf):
                assert (Display()(np.full_like(flat, value)) == NOTHING).all()
        if dtype != "uint8" or channels not in (1, 3):
            assert (Display(invalid=7)(flat) == NOTHING).all()


def test_invalid_values_do_not_change_the_stretch():
    image = (100 + RAMP).astype(np.float32)
    shown = Display(colour="gray")(image)
    holes = np.concatenate([np.full((1, 900, 1), -9999), np.full((1, 5, 1), np.nan), image], axis=1)
    found = Display(colour="gray", invalid=-9999)(holes.astype(np.float32))
    np.testing.assert_array_equal(found[:, 905:], shown)
    assert (found[:, :905] == NOTHING).all()


def test_a_few_bright_pixels_are_seen_where_all_others_are_equal():
    image = np.zeros((100, 100, 1), np.uint16)
    image[50, 50] = 900
    shown = Display(colour="gray")(image)
    assert shown[50, 50, 0] == 255 and shown[0, 0, 0] == 0


@pytest.mark.parametrize(
    "values, key",
    [
        ({"bands": (1, 2)}, "drawn_bands"),
        ({"bands": (-1,)}, "drawn_bands"),
        ({"percentiles": (99.0, 1.0)}, "drawn_percentiles"),
        ({"percentiles": (0.0, float("nan"))}, "drawn_percentiles"),
        ({"percentiles": (1.0,)}, "drawn_percentiles"),
    ],
)
def test_values_out_of_range_are_refused(values, key):
    with pytest.raises(ConfigError, match=f"config.eval.{key}="):
        Display(**values)
