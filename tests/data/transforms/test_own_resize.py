"""A resize of one's own: large-scale jitter in forty lines, named as module:Class in a config."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest

from jdet import build
from jdet.config import get_defaults
from jdet.data import pipeline
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.geometry import Canvas, patch_size
from jdet.data.transforms.multi_scale import View
from jdet.data.transforms.resize import Resize
from jdet.data.transforms.ssd import SSDAugment
from jdet.evaluation.detect import DetectFn
from jdet.evaluation.multi_scale import MultiScale
from jdet.types import ConfigError, Example, require
from tests.data.transforms.test_keep_ratio import make_image
from tests.evaluation.pixel_detector import AnySize
from tests.evaluation.test_tta import custom


@dataclasses.dataclass(frozen=True)
class Jitter(Resize):
    """Images fitted into a square, in training at a random multiple of that, cropped to the square.

    ``Element.scale`` is output pixels per pixel of the image.
    """

    keeps_ratio: ClassVar[bool] = True
    input_size: int = 64
    low: float = 0.5
    high: float = 2.0

    def __post_init__(self):
        require(0 < self.low <= self.high, "config.resize.low", self.low, "in 0 … high")

    @property
    def shapes(self):
        return ((self.input_size, self.input_size),)

    def content(self, height, width, shape, scale=0):
        factor = scale or min(shape[0] / height, shape[1] / width)
        return tuple(
            min(max(round(side * factor), 1), limit)
            for side, limit in zip((height, width), shape, strict=True)
        )

    def operations(self):
        def jitter(element, rng):
            if element.image is None:
                return element
            height, width = element.image.shape[:2]
            u, x, y = rng.random(3)
            fit = self.input_size / max(height, width)
            factor = fit * (self.low + (self.high - self.low) * u)
            sides = np.minimum(self.input_size / factor / np.array([width, height]), 1)
            corner = np.array([x, y]) * (1 - sides)
            return element._replace(patch=(*corner, *(corner + sides)), scale=factor)

        return {"jitter": jitter}

    def test_setting(self):
        return f"config.input_size={self.input_size}"


@dataclasses.dataclass(frozen=True)
class OnlyResize(Augment):
    """What the resize draws, and nothing else."""

    def operations(self, resize):
        return resize.operations()


class Folder:
    class_names = ("a",)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        image = make_image(40 + 10 * index, 100)
        box = np.array([[30, 10, 70, 30]], np.float32)
        one = np.zeros(1, np.int32)
        return Example(str(index), image, box, one, one > 0, one + 800.0)


def config():
    c = get_defaults()
    c.input_size = 64
    c.resize = build.group("resize", f"{__name__}:Jitter", high=3.0)
    c.augment = build.group("augment", f"{__name__}:OnlyResize")
    return c


def test_it_is_a_config_group_like_any_other():
    c = config()
    assert c.resize.to_dict() == {"name": f"{__name__}:Jitter", "low": 0.5, "high": 3.0}
    assert build.resize(c) == Jitter(input_size=64, high=3.0)
    c.resize.low = 4.0
    with pytest.raises(ConfigError, match="config.resize.low=4.0"):
        build.resize(c)


def test_boxes_follow_the_pixels_that_it_shows():
    """Red tells the row and green the column of a pixel in the original: held against the boxes."""
    c = config()
    options = dict(resize=build.resize(c), augment=build.augment(c), max_boxes=2, seed=3)
    sizes, seen = set(), 0
    with pipeline.train_batches(Folder(), **options, batch_size=4, threads=0) as batches:
        for _ in range(20):
            batch = next(batches)
            assert batch.images.shape == (4, 64, 64, 3)
            for row in range(4):
                height, width = batch.original_sizes[row]
                content = batch.image_sizes[row]
                sizes.add(tuple(content.tolist()))
                pixels = batch.images[row].astype(float)
                if not batch.valid[row, 0]:
                    continue
                x1, y1, x2, y2 = batch.boxes[row, 0]
                assert 0 <= x1 < x2 <= content[1] and 0 <= y1 < y2 <= content[0]
                if x1 < 1 or y1 < 1 or x2 > content[1] - 1 or y2 > content[0] - 1:
                    continue  # cut off
                centre = pixels[int((y1 + y2) / 2), int((x1 + x2) / 2)]
                assert (
                    abs(centre[0] / 255 * height - 20) < 4 and abs(centre[1] / 255 * width - 50) < 4
                )
                seen += 1
    assert len(sizes) > 20 and seen > 20


def test_testing_shows_the_whole_image():
    resize = Jitter()
    with pipeline.eval_batches(
        Folder(), resize=resize, batch_size=6, max_boxes=1, threads=0
    ) as batches:
        (batch,) = batches
    np.testing.assert_array_equal(batch.image_sizes[:, 1], [64] * 6)
    np.testing.assert_array_equal(batch.image_sizes[0], [26, 64])
    np.testing.assert_allclose(batch.boxes[0, 0], np.array([30, 10, 70, 30]) * 0.64, atol=0.4)
    prepared, content = View((64, 64), resize).prepare(Folder()[0].image)
    np.testing.assert_array_equal(prepared, batch.images[0])
    assert content.tolist() == [26, 64]


@dataclasses.dataclass(frozen=True)
class Scaled(Jitter):
    """Says how it scales; its images do not fill its inputs, whatever it declares of proportions."""

    keeps_ratio: ClassVar[bool] = False

    def scaled(self, factor):
        return dataclasses.replace(self, input_size=round(factor * self.input_size))


def views(resize, *factors):
    passes = tuple((*factor, False, 0, 0) for factor in factors)
    return MultiScale(DetectFn(AnySize()), custom(*passes), resize).views


def test_several_sizes_need_a_resize_that_scales():
    """At the size of testing every resize will do; elsewhere the class has to say how."""
    assert views(Jitter(), (1, 1)) == (View((64, 64), Jitter()),)
    with pytest.raises(ConfigError, match=r"1.5 times.*define Jitter.scaled\(factor\).*'flip'"):
        views(Jitter(), (1, 1), (1.5, 1.5))
    with pytest.raises(ConfigError, match="pass of 1 × 0.6 changes proportions.*Scaled"):
        views(Scaled(), (1, 0.6))
    larger = Scaled(input_size=96)
    assert views(Scaled(), (1, 1), (1.5, 1.5)) == (View((64, 64), Scaled()), View((96, 96), larger))
    image = Folder()[0].image
    _, content = views(Scaled(), (1.5, 1.5))[0].prepare(image)
    assert content.tolist() == [38, 96]


def test_it_draws_last_after_the_augmentation():
    chain = SSDAugment().operations(Jitter())
    assert list(chain)[-1] == "jitter"
    assert patch_size(Canvas(100, 40), (0.0, 0.0, 0.5, 0.5)) == (20, 50)
