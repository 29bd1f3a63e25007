"""What images and labels show by themselves: each way of spoiling a set has a number of its own."""

import functools

import numpy as np
import pytest

from jdet.analysis.learning import evidence
from jdet.data.sources.shapes import ShapesSource
from tests.analysis.learning.spoiled import Spoiled

SHAPES = dict(size=96, count=56, num_classes=3, min_scale=0.25, max_objects=5, clutter=1.0)


@functools.cache
def examples():
    return list(map(ShapesSource(**SHAPES).__getitem__, range(SHAPES["count"])))


def measured(way):
    source, seen = Spoiled(way, **SHAPES), []
    for index, good in enumerate(examples()):
        example = source.spoil(good, index)
        image = (example.image.astype(np.float32) - np.float32([123, 117, 104])) / 64
        seen.append(evidence.Seen(image, example.boxes.astype(float), example.labels, 0.8))
    return evidence.measure(seen, len(source.class_names))


def test_a_good_set():
    found = measured("good")
    assert found.flat == found.contradicting == 0
    assert found.edges > 5 and found.alike > 3 and found.alike_fine > 3


@pytest.mark.parametrize(
    "way, changed",
    [
        ("shuffled", lambda found: found.alike < 3 and found.alike_fine < 4.5 and found.edges > 5),
        ("shifted", lambda found: found.edges < 1.5),
        ("contradictory", lambda found: found.contradicting == 1),
        ("constant", lambda found: found.flat == 1),
        ("tiny", lambda found: np.isnan(found.edges) and found.flat == 0),
    ],
)
def test_a_spoiled_set(way, changed):
    found = measured(way)
    assert changed(found), found


def test_any_number_of_channels():
    """OpenCV resizes four at most."""
    rng = np.random.default_rng(0)
    boxes = np.array([[4.0, 4, 20, 20], [30, 30, 60, 50]])
    for channels in (1, 2, 5, 9):
        image = rng.normal(size=(64, 64, channels)).astype(np.float32)
        seen = [evidence.Seen(image, boxes, np.array([0, 1]), 0.5)] * 20
        assert evidence.measure(seen, 2).flat == 0


def test_too_little_says_nothing():
    source = ShapesSource(**{**SHAPES, "count": 3})
    seen = [
        evidence.Seen(each.image.astype(np.float32), each.boxes, each.labels, 1.0)
        for each in (source[i] for i in range(3))
    ]
    found = evidence.measure(seen, 3)
    assert np.isnan([found.edges, found.alike, found.alike_fine]).all()
    empty = evidence.Seen(seen[0].image, np.zeros((0, 4)), np.zeros(0, int), 1.0)
    assert np.isnan(evidence.measure([empty], 3).contradicting)
