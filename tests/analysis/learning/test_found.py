"""Detections held against the objects of their own image and of others."""

import math

import numpy as np

from jdet.analysis.learning import found
from jdet.types import Example, ImageDetections


def pairs(count=24, *, aware=0.0, classes=3, right=0.0, seed=0):
    """Images with three objects, and detections of which a share lies on objects, of the right class."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        low = rng.uniform(0, 70, (3, 2))
        boxes = np.concatenate([low, low + rng.uniform(15, 30, (3, 2))], 1)
        labels = rng.integers(0, classes, 3)
        places = rng.uniform(0, 70, (20, 2))
        detected = np.concatenate([places, places + 20], 1)
        told = rng.integers(0, classes, 20)
        near = rng.random(3) < aware
        detected[:3][near] = boxes[near]
        told[:3] = np.where(rng.random(3) < right, labels, told[:3])
        scores = np.sort(rng.uniform(0, 0.3, 20))[::-1]
        example = Example(
            id=str(index),
            image="",
            boxes=boxes.astype(np.float32),
            labels=labels.astype(np.int32),
            ignore=np.zeros(3, bool),
            areas=np.ones(3, np.float32),
        )
        made.append((ImageDetections(str(index), detected, scores, told.astype(np.int32)), example))
    return made


NAMES = ("a", "b", "c")


def test_chance_and_learning():
    blind = found.measure(pairs(), NAMES)
    assert abs(blind.near) < 3 and blind.agnostic < 0.1 and not blind.same
    sees = found.measure(pairs(aware=0.5), NAMES)
    assert sees.near > 4 and sees.agnostic > 0.2 and sees.recall > blind.recall
    assert sees.ap < 0.7 * sees.agnostic and abs(sees.classes) < 3
    tells = found.measure(pairs(aware=1.0, right=1.0), NAMES)
    assert tells.classes > 4 and tells.recall == 1 and tells.ap > 0.8
    assert tells.right > 0.9 and tells.objects == 72 and tells.images == 24


def test_the_same_detections_in_every_image():
    made = pairs()
    first = made[0][0]
    dead = [(first._replace(id=example.id), example) for _, example in made]
    assert found.measure(dead, NAMES).same


def test_too_little_says_nothing():
    few = found.measure(pairs(3, aware=1.0, right=1.0), NAMES)
    assert math.isnan(few.near) and math.isnan(few.classes) and few.ap > 0.9
    empty = pairs(8)
    nothing = ImageDetections("", np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int32))
    none = found.measure([(nothing._replace(id=e.id), e) for _, e in empty], NAMES)
    assert none.recall == 0 and none.ap == 0 and math.isnan(none.near)
    ignored = [(d, e._replace(ignore=np.ones(3, bool))) for d, e in empty]
    assert found.measure(ignored, NAMES).objects == 0
