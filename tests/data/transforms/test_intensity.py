"""Photometric changes in the range of the data's values, for any type and number of channels."""

import colorsys

import numpy as np
import pytest

from jdet.data.transforms.element import Element
from jdet.data.transforms.intensity import ImageValues, Intensity
from jdet.data.transforms.intensity_augment import IntensityAugment
from jdet.data.transforms.photometric import Distortion, distort
from jdet.data.transforms.warp import Warp
from jdet.types import ImageKind

RANGES = {"uint8": (0.0, 255.0), "uint16": (30_000.0, 34_000.0), "float32": (0.25, 0.251)}


def values_of(dtype, channels, colour="bands"):
    return ImageValues.of(ImageKind(channels, colour, dtype, RANGES[dtype]))


def image_of(dtype, channels, share=None):
    """Values all over the range, or all at one share of it."""
    low, high = RANGES[dtype]
    rng = np.random.default_rng(channels)
    shares = rng.random((6, 7, channels)) if share is None else np.full((6, 7, channels), share)
    wide = low + (high - low) * shares
    return (np.rint(wide) if dtype != "float32" else wide).astype(dtype)


def shares(image, dtype):
    low, high = RANGES[dtype]
    return (image.astype(np.float64) - low) / (high - low)


@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_the_same_draw_does_the_same_to_every_type(dtype, channels):
    draw = Intensity(gamma=(1.5,), gain=(0.7,), offset=(0.1,))
    image = image_of(dtype, channels)
    before = image.copy()
    changed = draw.apply(image, values_of(dtype, channels))
    assert changed.dtype == dtype and changed.shape == image.shape
    np.testing.assert_array_equal(image, before)
    expected = shares(image, dtype) ** 1.5 * 0.7 + 0.1
    np.testing.assert_allclose(shares(changed, dtype), expected, atol=3e-3)


def test_channels_of_their_own_and_lost_ones():
    draw = Intensity(gain=(1.0, 0.5, 1.0), offset=(0.0, 0.0, 0.25), dropped=(0,))
    image = image_of("uint16", 3)
    values = values_of("uint16", 3)._replace(neutral=(31_000.0, 0.0, 0.0))
    changed = draw.apply(image, values)
    assert (changed[..., 0] == 31_000).all()
    was, now = shares(image, "uint16"), shares(changed, "uint16")
    np.testing.assert_allclose(now[..., 1], was[..., 1] / 2, atol=2e-4)
    np.testing.assert_allclose(now[..., 2], was[..., 2] + 0.25, atol=2e-4)


def test_nothing_to_do_returns_the_image_itself():
    image = image_of("uint16", 3)
    values = values_of("uint16", 3)
    assert Intensity().apply(image, values) is image
    assert Intensity(noise_seed=7, hue=30.0, saturation=0.5).apply(image, values) is image
    assert Distortion(saturation=0.5, hue=9.0).apply(image, values) is image


def test_whole_numbers_saturate_where_their_type_ends_and_floats_do_not():
    bright = np.full((2, 2, 1), 65_000, np.uint16)
    values = ImageValues.of(ImageKind(1, "gray", "uint16", (0.0, 4095.0)))
    assert (Intensity(gain=(2.0,)).apply(bright, values) == 65_535).all()
    assert (Intensity(offset=(-20.0,)).apply(bright, values) == 0).all()
    twice = Intensity(gain=(2.0,)).apply(bright.astype(np.float32), values)
    np.testing.assert_allclose(twice, 130_000)
    # Twelve bits in sixteen: values above the range stay.
    assert (Intensity(gain=(1.01,)).apply(np.full((1, 1, 1), 4095, np.uint16), values) > 4095).all()


def test_noise_is_normal_independent_and_repeatable():
    image = np.full((100, 100, 2), 0.2505, np.float32)
    draw = Intensity(noise=0.05, noise_seed=3)
    values = values_of("float32", 2)
    noise = shares(draw.apply(image, values), "float32") - 0.5
    np.testing.assert_allclose((noise.mean(), noise.std()), (0, 0.05), atol=2e-3)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.05
    np.testing.assert_array_equal(draw.apply(image, values), draw.apply(image, values))
    assert (draw._replace(noise_seed=4).apply(image, values) != draw.apply(image, values)).any()


@pytest.mark.parametrize("dtype", RANGES)
def test_hue_and_saturation_are_of_rgb_alone(dtype):
    """Against colorsys, in shares of the range."""
    values = values_of(dtype, 3, "rgb")
    low, high = RANGES[dtype]
    colour = np.array([0.8, 0.2, 0.4])
    image = np.full((1, 1, 3), low + (high - low) * colour).astype(dtype)
    changed = Intensity(saturation=0.5, hue=120.0).apply(image, values)
    h, s, v = colorsys.rgb_to_hsv(*shares(image, dtype)[0, 0])
    expected = colorsys.hsv_to_rgb((h + 1 / 3) % 1, s / 2, v)
    np.testing.assert_allclose(shares(changed, dtype)[0, 0], expected, atol=5e-3)
    draw = Intensity(saturation=0.5, hue=120.0)
    assert draw.apply(image, values._replace(colour="bands")) is image


def test_ssds_distortion_is_bit_identical_on_8_bit_rgb_and_alike_on_all_others():
    image = np.random.default_rng(0).integers(60, 180, (8, 9, 3)).astype(np.uint8)
    draw = Distortion(brightness=20.0, contrast=1.2, saturation=0.8, hue=5.0)
    rgb = ImageValues()
    np.testing.assert_array_equal(draw.apply(image, rgb), distort(image, draw))
    wide = (image.astype(np.uint16) * 257).astype(np.uint16)
    found = draw.apply(wide, ImageValues.of(ImageKind(3, "rgb", "uint16", (0.0, 65_535.0))))
    near = np.abs(found / 257 - distort(image, draw._replace(contrast_first=False)).astype(float))
    assert np.median(near) < 3
    grey = draw.apply(image[..., :1], ImageValues.of(ImageKind(1, "gray")))
    np.testing.assert_allclose(
        grey.astype(float), np.clip((image[..., :1] + 20.0) * 1.2, 0, 255), atol=1
    )


def test_draws_stay_in_their_ranges_and_fire_as_often_as_they_should():
    augment = IntensityAugment(drop=0.3, channelwise=True)
    rng = np.random.default_rng(0)
    draws = [augment.draw(rng, 3) for _ in range(2000)]
    for key, low, high, nothing in (
        ("gain", 0.7, 1.3, 1.0),
        ("offset", -0.1, 0.1, 0.0),
        ("gamma", np.exp(-0.3), np.exp(0.3), 1.0),
    ):
        drawn = [getattr(draw, key) for draw in draws]
        fired = np.array([d for d in drawn if d != (nothing,)])
        assert fired.shape[1] == 3 and abs(len(fired) / 2000 - 0.5) < 0.05
        assert fired.min() >= low and fired.max() <= high
        assert np.ptp(fired) > 0.9 * (high - low)
        assert abs(np.corrcoef(fired.T)[0, 1]) < 0.1
    noise = np.array([draw.noise for draw in draws])
    assert 0 <= noise.min() and 0.019 < noise.max() <= 0.02 and abs((noise > 0).mean() - 0.5) < 0.05
    hue = np.array([draw.hue for draw in draws])
    assert -36 <= hue.min() < -34 and 34 < hue.max() <= 36
    lost = np.array([len(draw.dropped) for draw in draws])
    assert lost.max() == 2 and abs(lost.mean() - (0.9 - 0.3**3)) < 0.05  # one stays


def test_off_and_on():
    rng = np.random.default_rng(1)
    off = IntensityAugment(photometric=0.0).draw(rng, 5)
    image = image_of("float32", 5)
    assert off.apply(image, values_of("float32", 5)) is image
    on = IntensityAugment(photometric=1.0).draw(rng, 5)
    assert (len(on.gain), on.gain != (1.0,), on.noise > 0, on.dropped) == (1, True, True, ())


def test_the_draws_do_not_depend_on_the_image():
    """Geometry is seeded by operation; the draws of values by the number of channels alone."""
    augment = IntensityAugment()
    chain = augment.operations(Warp(32))
    assert list(chain) == ["photometric", "expand", "crop", "interpolation", "flip"]
    one, two = (
        chain["photometric"](Element(image=image_of(dtype, 2)), np.random.default_rng(5)).distortion
        for dtype in ("uint16", "float32")
    )
    assert one == two
    blank = Element()
    assert chain["photometric"](blank, np.random.default_rng(5)) is blank
