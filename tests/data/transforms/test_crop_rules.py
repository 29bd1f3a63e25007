"""Which objects stay in a crop, besides SSD's rule of the centre."""

import numpy as np
import pytest

from jdet.data.transforms import finish, geometry
from jdet.data.transforms.element import Element
from jdet.data.transforms.geometry import Canvas
from jdet.data.transforms.ssd import SSDAugment
from jdet.data.transforms.warp import Warp
from jdet.types import ConfigError


def test_share_of_boxes_in_a_patch():
    boxes = np.array(
        [[0, 0, 0.5, 1], [0.25, 0, 0.75, 1], [0.6, 0, 1, 1], [0.2, 0, 0.2, 1]], np.float32
    )
    shares = geometry.share_inside(boxes, (0.0, 0.0, 0.5, 0.5))
    np.testing.assert_allclose(shares, [0.5, 0.25, 0, 0])


def test_a_crop_can_keep_objects_by_share_and_side():
    """A crop of the left half: the second object keeps its share but not its centre, the third neither."""
    boxes = np.array([[0, 0, 20, 40], [30, 0, 80, 40], [49, 0, 99, 40], [46, 5, 50, 9]], np.float32)
    element = Element(
        image=np.zeros((100, 100, 3), np.uint8), boxes=boxes, patch=(0.0, 0.0, 0.5, 1.0)
    )
    resize = Warp(input_size=100)

    def kept(**fields):
        cut = element._replace(**fields)
        return finish.moved_objects(cut, finish.locate(cut, resize))[1].tolist()

    assert kept() == [0, 3]
    assert kept(least_share=0.39) == [0, 1, 3]
    assert kept(least_share=0.41) == [0, 3]
    assert kept(least_share=0.39, least_side=5.0) == [0, 1]  # 8 × 4 pixels after the resize
    augment = SSDAugment(crop_share=0.4, crop_side=5.0)
    rng = np.random.default_rng(0)
    cut = augment.operations(resize)["crop"](element._replace(canvas=Canvas(100, 100, 0, 0)), rng)
    assert (cut.least_share, cut.least_side) == (0.4, 5.0)
    with pytest.raises(ConfigError, match="config.augment.crop_share=1.5; it must be in 0 … 1"):
        SSDAugment(crop_share=1.5)
