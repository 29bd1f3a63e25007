"""What the labels of a set decide: orientations, sizes, tiles, crops; and what they cannot be used for."""

import numpy as np
import pytest

from jdet.analysis import orientation, scales
from jdet.analysis.set_problems import problems
from jdet.data.objects import SetObjects

RNG = np.random.default_rng(0)


def objects(count=400, image=(200, 200), size=(10, 20), spread=(1.0, 1.0), shape=1.0, labels=1):
    """Boxes at random places; ``shape`` is height over width, ``spread`` of width and height are used."""
    places = 0.5 + (RNG.random((count, 2)) - 0.5) * spread * 0.8
    sides = RNG.uniform(*size, (count, 1)) * [shape**-0.5, shape**0.5]
    sides = sides * RNG.uniform(0.9, 1.1, (count, 2))
    middle = places * image
    boxes = np.hstack([middle - sides / 2, middle + sides / 2])
    which = np.arange(count) * 10 // count
    return SetObjects(
        boxes, np.arange(count) % labels, which, np.tile(np.array(image, float), (count, 1)),
        np.bincount(which, minlength=10),
    )  # fmt: skip


@pytest.mark.parametrize(
    "found, names, allowed, why",
    [
        (objects(), ["cell"], "yyy", "objects have no direction"),
        (objects(spread=(1, 0.5)), ["person"], "ynn", "gather at one height"),
        (objects(shape=2.5), ["person"], "yyn", "'person' is 2.5"),
        (objects(image=(200, 150)), ["cell"], "yyn", "200×150 would be stretched"),
        (objects(20), ["cell"], "ynn", "20 objects are too few"),
        (objects(), ["left_hand", "right_hand"], "nyn", "class 'left_hand'"),
        (objects(), ["Arrow-Up", "car"], "ynn", "class 'Arrow-Up'"),
        (objects(), ["turns clockwise"], "nny", "clockwise"),
        (objects(), ["6", "9"], "nnn", "single characters"),
        (objects(), ["license text"], "nnn", "license text"),
        (objects(), ["upholstery", "leftover", "textile"], "yyy", ""),
    ],
)
def test_orientations_that_are_allowed(found, names, allowed, why):
    """Words count whole; what is narrow in height stands on some ground."""
    chosen = orientation.look(found, names)
    assert "".join("ny"[each] for each in chosen[:3]) == allowed
    assert why in chosen.describe()


def test_perspective_has_an_up():
    found = objects()
    height = found.boxes[:, [1, 3]].mean(1) / 200
    middle = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    half = (2 + 20 * height)[:, None]
    near = found._replace(boxes=np.hstack([middle - half, middle + half]))
    chosen = orientation.look(near, ["car"])
    assert chosen[:3] == (True, False, False) and "larger farther down" in chosen.why[1]


def test_square_parts_of_long_images_can_be_turned():
    assert orientation.look(objects(image=(400, 200)), ["cell"], square=True).quarter


@pytest.mark.parametrize(
    "given, side, tile, crop, expand",
    [
        (dict(size=(10, 20)), 256, 0, 0.6, 0.0),  # 10 of 200 pixels: 12 of 240
        (dict(size=(40, 50)), 128, 0, 0.6, 0.0),
        (dict(size=(40, 400), image=(800, 800)), 128, 0, 0.3, 0.0),
        (dict(size=(100, 780), image=(800, 800)), 128, 0, 0.3, 0.5),
        (dict(size=(6, 9), image=(2000, 2000)), 320, 176, 0.6, 0.0),
    ],
)
def test_sizes(given, side, tile, crop, expand):
    found = scales.choose(objects(**given), 128, 320)
    assert found.side == pytest.approx(side, abs=32) and found.side % 32 == 0
    assert (found.tile > 0) == (tile > 0) and abs(found.tile - tile) <= 32
    assert (found.crop_scale, found.expand) == (crop, expand)
    if (
        tile
    ):  # small objects have what they need, large ones fit, and a tile has fewer than an image
        assert 6 * found.side / found.tile > 10 and found.overlap >= 9 and found.crowd < 40
    else:
        assert found.crowd == 40


def test_the_smallest_class_decides_and_large_objects_forbid_tiles():
    both = objects(size=(20, 20), labels=2)
    half = np.where(both.labels[:, None] == 1, 4.0, 10.0)
    middle = (both.boxes[:, :2] + both.boxes[:, 2:]) / 2
    mixed = both._replace(boxes=np.hstack([middle - half, middle + half]))
    assert scales.small(mixed) == pytest.approx(8 / 200)
    assert scales.choose(mixed, 128, 320).side == 320
    large = both._replace(boxes=np.hstack([middle - half * [8.0], middle + half * [8.0]]) / 1.0)
    large = large._replace(boxes=np.where(mixed.labels[:, None] == 1, mixed.boxes, large.boxes))
    found = scales.choose(large, 64, 96)
    assert found.tile == 0 and "no smaller than images" in found.why[1]


def test_given_sizes_are_kept():
    found = scales.choose(objects(), 128, 320, side=160, tile=96)
    assert (found.side, found.tile, found.why[1]) == (160, 96, "given")
    assert scales.choose(objects(size=(2, 3)), 128, 320, tile=0).tile == 0


def said(train, evaluation=None, names=("a", "b"), **given):
    chosen = scales.choose(train, 128, 320, **given)
    return problems(train, evaluation or train, list(names)[: train.labels.max() + 1], chosen)


def test_nothing_is_said_of_a_good_set():
    assert said(objects(labels=2)) == []


@pytest.mark.parametrize(
    "found, given, text",
    [
        (objects(size=(1, 1.5), image=(9000, 9000)), dict(tile=0), "take images with more pixels"),
        (objects(size=(9, 9.5), image=(9000, 9000)), dict(tile=0), "smaller than 4 pixels"),
        (objects(size=(90, 95)), dict(tile=64), "larger than a tile of 64 pixels, the smallest 8"),
        (objects(size=(220, 225), spread=(0, 0)), {}, "fill their images"),
    ],
)
def test_objects_of_impossible_sizes(found, given, text):
    (line,) = said(found, **given)
    assert line.startswith("all 400 objects") and text in line


def test_remedies_of_sizes():
    """Tiles, or a larger input, as the line says, and it is not said again."""
    tiny = objects(size=(9, 9.5), image=(9000, 9000))
    assert "give a larger input (size= of the experiment) or tiles (tile=)" in said(tiny, tile=0)[0]
    assert said(tiny, tile=128) == []
    assert said(tiny, side=4096, tile=0) == []
    large = objects(size=(90, 95))
    assert "Leave tile= out" in said(large, tile=64)[0] and said(large) == []


def test_classes_without_examples():
    both, one = objects(labels=2), objects()
    (line,) = said(both, one)
    assert "none of the 10 images for evaluation shows b" in line and "holdout=3" in line
    chosen = scales.choose(one, 128, 320)
    (line,) = problems(one, both, ["a", "b"], chosen)
    assert line.startswith("no training image shows b")
    assert problems(one, one, ["a", "b"], chosen) == ["no image shows b"]
    many = [f"class{i}" for i in range(9)]
    assert "class5 and 3 more" in problems(one, one, many, chosen)[0]


def test_contradictory_labels():
    """Boxes of two classes around one object; two of one class contradict nothing."""
    found = objects(50, labels=2)
    twice = SetObjects(
        *(np.concatenate([found[i], found[i]])[np.argsort(np.tile(found.image, 2), kind="stable")]
          for i in range(4)),
        found.counts * 2,
    )  # fmt: skip
    assert said(twice) == []
    order = np.argsort(np.tile(found.image, 2), kind="stable")
    other = np.concatenate([found.labels, 1 - found.labels])[order]
    (line,) = said(twice._replace(labels=other))
    assert (
        line.startswith("50 pairs of boxes") and "100% of the objects, most often a and b" in line
    )
