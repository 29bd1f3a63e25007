"""Geometry treats every channel of every type alike."""

import numpy as np
import pytest

from jdet.data.transforms import geometry, resample
from jdet.data.transforms.geometry import Orientation, Placement, Rect
from jdet.data.transforms.resample import INTERPOLATIONS

TURNED = (Orientation(), Orientation(True, False, False), Orientation(True, True, True))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 4, 5, 9])
def test_channels_are_rendered_one_by_one(dtype, channels):
    rng = np.random.default_rng(channels)
    top = {"uint8": 255, "uint16": 65535, "float32": 1e-3}[dtype]
    image = rng.uniform(0, top, (20, 30, channels)).astype(dtype)
    fill = tuple(np.linspace(0, top, channels).tolist())
    placement = Placement(Rect(2, 3, 28, 19), Rect(4, 0, 24, 24))
    for kind in INTERPOLATIONS.values():
        for orientation in TURNED:
            options = dict(interpolation=kind, orientation=orientation, distort=lambda part: part)
            whole = geometry.render(image, placement, (24, 24), fill=fill, **options)
            assert whole.shape == (24, 24, channels) and whole.dtype == dtype
            for channel in range(channels):
                alone = image[..., channel : channel + 1].copy()
                one = geometry.render(
                    alone, placement, (24, 24), fill=fill[channel : channel + 1], **options
                )
                # OpenCV rounds by the number of channels that it has at a time.
                error = np.abs(whole[..., channel].astype(float) - one[..., 0])
                assert error.max() <= (1 if dtype != "float32" else 1e-5 * top)


def test_what_lies_beside_an_image_has_its_values():
    blank = resample.blank((2, 3), (0.2501, 7.0), np.float32)
    np.testing.assert_array_equal(blank, np.tile(np.float32([0.2501, 7.0]), (2, 3, 1)))
    assert resample.blank((1, 1), (40000.4,), np.uint16).item() == 40000
    image = np.full((2, 2, 1), np.nan, np.float32)
    padded = resample.pad(image, (2, 4), (0.5,))
    assert np.isnan(padded[:, :2]).all() and (padded[:, 2:] == 0.5).all()
