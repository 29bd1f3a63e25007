"""Resizing inside a program gives what the run's own resizing gives on the host."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.data.transforms.fit_crop import FitCrop
from jdet.data.transforms.keep_ratio import KeepRatio
from jdet.data.transforms.warp import Warp
from jdet.export import resize

SIZES = (
    *((200, 150), (100, 130), (96, 96), (7, 9), (1, 30)),  # linear, larger and smaller, halved
    *((192, 192), (201, 170), (480, 144), (150, 400)),  # by area, whole and broken ratios
    *((20, 331), (331, 20)),  # one side grows
)


@functools.cache
def program(rule, shape, channels, dtype):
    del channels, dtype
    return jax.jit(lambda image, size: resize.prepare(image, size, rule, shape))


@pytest.mark.parametrize(
    ("rule", "channels", "dtype", "most"),
    [
        (Warp(input_size=48), 6, "uint8", 1),
        (KeepRatio(short=(32,), long=48, shapes=((32, 64), (48, 32))), 3, "uint8", 1),
        (Warp(input_size=48), 2, "uint16", 1),
        (FitCrop(input_size=32), 1, "float32", 1e-2),
    ],
    ids=["warp-6-uint8", "keep-3-uint8", "warp-2-uint16", "fit-1-float32"],
)
def test_pixels_are_those_of_opencv(rule, channels, dtype, most):
    """Exact for 8 bits where two pixels are mixed; a mean is summed in another order."""
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        image = (rng.random((height, width, channels)) * 255).astype(dtype)
        canvas = rng.integers(0, 255, (480, 480, channels)).astype(dtype)
        canvas[:height, :width] = image
        shape = rule.shapes[rule.shape_of(height, width)]
        expected, content = rule.prepare(image)
        size = np.array([height, width], np.int32)
        found, sides = jax.device_get(program(rule, shape, channels, dtype)(canvas, size))
        assert found.dtype == dtype and sides.tolist() == content.tolist()
        apart = np.abs(found.astype(float) - expected)
        shrinks = height / content[0], width / content[1]
        strong = max(shrinks) > 3 and min(shrinks) >= 1  # a mean
        assert apart.max() <= (0 if dtype == "uint8" and not strong else most), (height, width)
        assert (apart > 0.5).mean() < 2e-3


@pytest.mark.parametrize(("height", "width"), [(100, 2000), (2000, 100)])
def test_one_side_shrinks_much_and_the_other_grows(height, width):
    """By OpenCV's "area", which then interpolates between two pixels."""
    rule = Warp(input_size=300)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    expected, _ = rule.prepare(image)
    size = np.array([height, width], np.int32)
    found, _ = jax.jit(lambda image, size: resize.prepare(image, size, rule, (300, 300)))(
        image, size
    )
    np.testing.assert_array_equal(found, expected)


def test_shapes_and_contents_are_those_of_the_rule():
    """Also of halves and whole numbers, which the rule's double precision rounds by itself."""
    heights, widths = np.meshgrid(np.arange(1, 1500, 31), np.arange(1, 1500, 37))
    sizes = np.stack([heights.ravel(), widths.ravel()], 1)
    # 800 / 298 · 596 / 2 is rounded to less than a half, 800 / 333 · 333 to 799.9….
    sides = np.arange(2, 1000, 3)
    sizes = np.concatenate([sizes, np.stack([sides, 2 * sides], 1), np.stack([sides, sides], 1)])
    sizes = np.concatenate([sizes, [(298, 596), (596, 298), (333, 500)]]).astype(np.int32)
    rules = (
        KeepRatio(short=(800,), long=1333),
        KeepRatio(short=(800,), long=1333, rounding="down"),
        KeepRatio(short=(256,), long=400, shapes=((256, 256), (200, 416))),
        FitCrop(input_size=448),
    )
    altered = 0
    for rule in rules:

        def all_of(size, rule=rule):
            sides = [jnp.stack(resize.content(rule, size[0], size[1], s)) for s in rule.shapes]
            return resize.shape_of(rule, size[0], size[1]), jnp.stack(sides)

        index, sides = jax.device_get(jax.jit(jax.vmap(all_of))(sizes))
        for (height, width), i, own in zip(sizes.tolist(), index, sides, strict=True):
            assert i == rule.shape_of(height, width)
            assert tuple(own[i]) == rule.content(height, width, rule.shapes[i]), (height, width)
            altered += own[i].min() == 799
    assert altered


def test_invalid_values_are_replaced_before_they_are_mixed():
    rule = Warp(input_size=8)
    image = np.ones((11, 13, 1), np.float32)
    image[3:5, 4:9] = np.nan

    def fill(values):
        return jnp.where(jnp.isfinite(values), values, 1.0)

    size = np.array([11, 13], np.int32)
    found, _ = jax.jit(lambda x: resize.prepare(x, size, rule, (8, 8), fill))(image)
    np.testing.assert_allclose(found, 1.0, rtol=1e-6)
