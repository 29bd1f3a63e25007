"""Parts cut out as in DETR: their sizes and places, what becomes of objects, and what is refused."""

import numpy as np
import pytest

from jdet.data.transforms.detr import DETRAugment
from jdet.data.transforms.element import Element
from jdet.data.transforms.finish import locate, moved_objects
from jdet.data.transforms.fit_crop import FitCrop
from jdet.data.transforms.keep_ratio import KeepRatio
from jdet.types import ConfigError

RESIZE = KeepRatio(short=(480, 800), long=1333)
HEIGHT, WIDTH = 300, 420


def element(boxes=(), size=(HEIGHT, WIDTH)):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)
    image = np.broadcast_to(np.uint8(0), (*size, 3))
    none = np.zeros(count, np.int32)
    return Element(image=image, boxes=boxes, labels=none, ignore=none > 0, shape=(800, 1344))


def drawn(augment, count=400, **given):
    operations = augment.operations(RESIZE)
    assert [*operations] == ["crop", "flip", "scale"]
    found = []
    for seed in range(count):
        one = element(**given)
        for operation in operations.values():
            one = operation(one, np.random.default_rng([seed, len(found)]))
        found.append(one)
    return found


def test_half_of_the_images_are_cut_and_mirrored():
    found = drawn(DETRAugment())
    cut = [one.patch != (0, 0, 1, 1) for one in found]
    assert np.mean(cut) == pytest.approx(0.5, abs=0.08)
    assert np.mean([one.orientation.flip for one in found]) == pytest.approx(0.5, abs=0.08)
    assert {one.scale for one in found} == {480, 800}
    assert not any(one.patch != (0, 0, 1, 1) for one in drawn(DETRAugment(crop=0.0), 50))


@pytest.mark.parametrize("short", [400, 500, 600])
def test_parts_have_the_sides_of_the_reference(short):
    """Whole numbers from min(side, 384) to min(side, 600) of the resized image, inside it, all of them."""
    whole = np.array([round(WIDTH * short / HEIGHT), short])
    patches = np.array([one.patch for one in drawn(DETRAugment(crop=1.0, short=(short,)), 600)])
    low, high = patches[:, :2] * whole, patches[:, 2:] * whole
    sides = high - low
    np.testing.assert_allclose(sides, sides.round(), atol=1e-6)
    least, most = np.minimum(whole, 384), np.minimum(whole, 600)
    assert (sides.round() >= least).all() and (sides.round() <= most).all()
    assert (low >= 0).all() and (high <= whole + 1e-6).all()
    spread = most - least
    assert (sides.min(0) <= least + spread // 20).all() and (
        sides.max(0) >= most - spread // 20
    ).all()
    assert (low.max(0) >= (whole - most) // 2).all()  # not all at the corner


def test_objects_stay_however_little_is_left_of_them():
    """A row of objects: those of which the part has a pixel stay, clipped to it."""
    edges = np.linspace(0, WIDTH, 11)
    row = [[x1, 0, x2, HEIGHT] for x1, x2 in zip(edges, edges[1:])]
    shares = []
    for one in drawn(DETRAugment(crop=1.0, flip=0.0), 100, boxes=row):
        location = locate(one, RESIZE)
        moved, keep = moved_objects(one, location)
        left, right = one.patch[0] * WIDTH, one.patch[2] * WIDTH
        inside = np.minimum(edges[1:], right) - np.maximum(edges[:-1], left)
        _, width = location.content
        clear = np.flatnonzero(inside > 1)  # sources are whole pixels
        assert set(clear) <= set(keep) <= set(np.flatnonzero(inside > 0))
        assert moved[:, 0].min() >= 0 and moved[:, 2].max() <= width + 1e-6
        shares.extend(inside[clear] / np.diff(edges)[clear])
    assert min(shares) < 0.05  # a rule that wanted a twentieth of an object would show


def test_long_images_are_resized_by_their_long_side():
    """3000×1000 at a short side of 600 would be 1800 long: it is 1333×444."""
    augment = DETRAugment(crop=1.0, short=(600,))
    for one in drawn(augment, 50, size=(1000, 3000)):
        sides = (np.array(one.patch[2:]) - one.patch[:2]) * (1333, 444)
        np.testing.assert_allclose(sides, sides.round(), atol=1e-6)


def test_an_image_that_cannot_be_read_goes_through():
    one = Element(problem="broken")
    for operation in DETRAugment(crop=1.0).operations(RESIZE).values():
        one = operation(one, np.random.default_rng(0))
    assert one.image is None and one.patch == (0, 0, 1, 1)


@pytest.mark.parametrize(
    "values, message",
    [
        (dict(crop=1.5), "config.augment.crop=1.5"),
        (dict(short=()), "config.augment.short"),
        (dict(low=700), r"config.augment.low=700.*1 … 600 \(config.augment.high\)"),
    ],
)
def test_bad_settings_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        DETRAugment(**values)


def test_images_are_not_cut_twice():
    with pytest.raises(ConfigError, match="take config.resize.name='keep_ratio'"):
        DETRAugment().operations(FitCrop(64))
