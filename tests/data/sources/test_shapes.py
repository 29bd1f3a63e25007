"""Synthetic shapes: deterministic, boxes tight, classes told apart by form alone."""

import pickle

import numpy as np
import pytest

from jdet.data.sources.shapes import SHAPES, ShapesSource, _Scene
from jdet.data.sources.shapes_drawing import clutter, coverage, outlines, pose
from jdet.types import ConfigError, Source


def test_an_image_is_a_function_of_seed_split_and_index():
    source = ShapesSource(seed=3)
    assert isinstance(source, Source)
    copy = pickle.loads(pickle.dumps(source))
    order = np.random.default_rng(0).permutation(20)
    again = {i: copy[i] for i in order}  # the order of reading does not matter
    for i in range(20):
        for a, b in zip(source[i], again[i], strict=True):
            np.testing.assert_array_equal(a, b)
    others = [ShapesSource(seed=4), ShapesSource(seed=3, split="test")]
    images = [s[i].image for s in (source, *others) for i in range(20)]
    assert len({image.tobytes() for image in images}) == len(images)
    ids = {s[i].id for s in (source, *others) for i in range(20)}
    assert len(ids) == len(images) and "train-3-000000" in ids


def test_example():
    source = ShapesSource(size=64, count=30)
    sizes = set()
    for i in range(len(source)):
        example, (height, width) = source[i], source.image_size(i)
        assert example.image.dtype == np.uint8 and example.image.shape == (height, width, 3)
        assert 64 <= height <= 80 and 64 <= width <= 80
        sizes.add((height, width))
        n = len(example.labels)
        assert example.boxes.shape == (n, 4) and example.boxes.dtype == np.float32
        assert example.labels.dtype == np.int32 and not example.ignore.any()
        x1, y1, x2, y2 = example.boxes.T
        assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 <= width).all() and (y2 <= height).all()
        np.testing.assert_array_equal(example.areas, (x2 - x1) * (y2 - y1))
    assert len(sizes) > 20
    assert source[-1].id == source[29].id
    with pytest.raises(IndexError):
        source[30]
    assert source.defects == [] and "30 images" in source.describe()


def test_boxes_are_tight_around_what_is_drawn():
    plain = dict(clutter=0, noise=0, max_objects=1, empty=0, count=40)
    drawn, errors = ShapesSource(**plain), []
    for i in range(len(drawn)):
        example = drawn[i]
        # The same background without the object: everything random about it is drawn first.
        empty = _Empty(**plain)[i]
        changed = np.abs(example.image.astype(int) - empty.image).max(axis=2) > 0
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        # A pixel belongs to the object when half of it does; the tip of a star is thinner.
        errors.append(np.abs(example.boxes[0] - seen))
    assert np.max(errors) <= 2 and np.mean(errors) < 0.75


class _Empty(ShapesSource):
    def _draw_items(self, rng):
        super()._draw_items(rng)
        return []


def test_distribution():
    source = ShapesSource(count=400)
    examples = [source[i] for i in range(len(source))]
    counts = np.bincount([len(e.labels) for e in examples])
    assert counts[0] > 0 and len(counts) == 9 and (counts[1:] > 15).all()
    labels = np.concatenate([e.labels for e in examples])
    per_class = np.bincount(labels, minlength=6)
    assert len(per_class) == 6 and per_class.min() > 0.7 * per_class.max()
    boxes = np.concatenate([e.boxes for e in examples])
    scales = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    assert scales.max() > 7 * scales.min() and scales.min() >= 4
    # Neither size nor colour nor texture says which class it is.
    means = [np.log(scales[labels == k]).mean() for k in range(6)]
    assert np.ptp(means) < 0.2


@pytest.mark.parametrize("occlusion", [0.0, 0.5])
def test_occlusion_is_limited_and_boxes_are_those_of_visible_pixels(occlusion):
    rng = np.random.default_rng(0)
    hidden = []
    for _ in range(30):
        scene, owner, whole = _Scene(60, 80, occlusion), np.full((60, 80), -1), []
        for is_object in rng.random(12) < 0.7:
            name = SHAPES[rng.integers(len(SHAPES))]
            mask = coverage(pose(rng, outlines()[name], rng.uniform(8, 70), 3.0))
            spot = scene.place(rng, mask, is_object)
            if spot is None:
                continue
            rows, columns, part = spot
            assert part.shape == owner[rows, columns].shape and min(part.shape) > 0
            owner[rows, columns][part > 0.5] = len(whole) if is_object else -1
            whole += [(part > 0.5).sum()] if is_object else []
        for i, box in enumerate(scene.boxes()):
            y, x = np.nonzero(owner == i)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            hidden.append(1 - len(x) / whole[i])
    assert max(hidden) <= occlusion + 1e-9
    assert max(hidden) >= 0.9 * occlusion  # the limit is used


@pytest.mark.parametrize("name", SHAPES)
def test_masks_have_the_area_and_the_extent_of_the_outline(name):
    rng = np.random.default_rng(0)
    for scale in (10.0, 41.7):
        contours = pose(rng, outlines()[name], scale, 0.3)
        mask = coverage(contours)
        signed = [
            np.sum(c[:, 0] * np.roll(c[:, 1], -1) - c[:, 1] * np.roll(c[:, 0], -1)) / 2
            for c in contours
        ]
        area = abs(signed[0]) - sum(abs(a) for a in signed[1:])
        perimeter = sum(np.linalg.norm(c - np.roll(c, 1, axis=0), axis=1).sum() for c in contours)
        # OpenCV paints every subpixel that the outline touches: an eighth of a pixel all around.
        assert area - 0.05 * perimeter <= mask.sum() <= area + 0.2 * perimeter + 1
        low, high = contours[0].min(axis=0), contours[0].max(axis=0)
        assert np.sqrt(np.prod(high - low)) == pytest.approx(scale)
        assert (low >= 0).all() and (low < 1).all()
        assert mask.shape == tuple(np.ceil(high[::-1]).astype(int))


def test_classes_differ_in_form():
    def upright(contours):
        low, high = contours[0].min(axis=0), contours[0].max(axis=0)
        return coverage([(c - low) / (high - low) * 31.9 for c in contours]) > 0.5

    masks = {name: upright(contours) for name, contours in outlines().items()}
    for name, mask in masks.items():
        others = [(mask & m).sum() / (mask | m).sum() for n, m in masks.items() if n != name]
        assert max(others) < 0.85


def test_clutter_is_of_every_kind_and_finite():
    rng = np.random.default_rng(0)
    kinds = [clutter(rng) for _ in range(300)]
    assert all(len(contours) == 1 and np.isfinite(contours[0]).all() for contours in kinds)
    # bar, corner, shards of 5 … 7 corners, blob, arc
    assert {len(contours[0]) for contours in kinds} == {4, 6, 5, 7, 40, 62}


def test_num_classes_and_empty_images():
    assert ShapesSource(num_classes=len(SHAPES)).class_names == SHAPES
    source = ShapesSource(count=20, empty=1.0)
    assert all(len(source[i].labels) == 0 for i in range(20))
    only = ShapesSource(count=20, num_classes=1, min_scale=0.5, max_scale=0.5, max_objects=1)
    assert {k for i in range(20) for k in only[i].labels.tolist()} == {0}


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": 8},
        {"count": 0},
        {"seed": -1},
        {"num_classes": 0},
        {"num_classes": 99},
        {"min_scale": 0.5, "max_scale": 0.2},
        {"min_scale": 0.01},
        {"max_scale": 1.5},
        {"max_objects": 0},
        {"empty": 2.0},
        {"clutter": -1.0},
        {"occlusion": 1.0},
        {"contrast": 500.0},
        {"noise": -1.0},
    ],
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ConfigError, match=f"ShapesSource: .*{list(arguments)[0]}.*it must be"):
        ShapesSource(**arguments)


def test_frequencies_of_classes():
    source = ShapesSource(size=32, count=150, num_classes=3, min_scale=0.2, frequencies=(20, 20, 1))
    labels = np.concatenate([source[i].labels for i in range(len(source))])
    counts = np.bincount(labels, minlength=3)
    assert 0.05 > counts[2] / counts.sum() > 0 and 0.8 < counts[0] / counts[1] < 1.25
    with pytest.raises(ConfigError, match=r"frequencies=\(1, 2\); it must be 3 numbers"):
        ShapesSource(num_classes=3, frequencies=(1, 2))
