import numpy as np
import pytest

from jdet.analyse.match import MOST, match, overlaps
from jdet.analyse.scored import outcomes
from jdet.evaluation.coco_ap import CocoEvaluator
from jdet.types import ImageDetections, OfficialObjects
from tests.analyse.random_set import NAMES, evaluated, iou, random_set, xywh

IOUS = np.linspace(0.5, 0.95, 10)


@pytest.mark.parametrize("seed", range(3))
def test_right_and_wrong_are_those_of_pycocotools_at_every_overlap(seed):
    images = random_set(seed, crowds=0.3)
    theirs = evaluated(images, CocoEvaluator(NAMES, engine="pycocotools"))
    matches = [match(image.found, image.ground_truth, IOUS) for image in images]
    for at, value in enumerate(IOUS):
        held, ours = theirs.outcomes(value), outcomes(images, len(NAMES), matches, at)
        for label, name in enumerate(NAMES):
            scores, right, objects = ours.of_class(label)
            one = held[f"coco/outcomes/{name}"]
            assert scores.tolist() == one["score"] and right.tolist() == one["right"]
            assert [objects] == one["objects"]


def test_overlaps_are_those_of_a_loop():
    (image,) = random_set(4, images=1, objects=9, crowds=0.4)
    found, ground_truth = xywh(image.found.boxes), image.ground_truth
    loop = [
        [
            iou(box, other, crowd)
            for other, crowd in zip(ground_truth.xywh, ground_truth.ignore, strict=True)
        ]
        for box in found
    ]
    np.testing.assert_allclose(overlaps(image.found, ground_truth), loop, rtol=1e-12)


def test_detections_beyond_the_most_of_a_class_count_neither_way():
    count = MOST + 3
    found = ImageDetections(
        id="a",
        boxes=np.tile(np.array([[0, 0, 9, 9]], np.float32), (count, 1)),
        scores=np.linspace(1, 0.1, count, dtype=np.float32)[::-1].copy(),
        labels=np.zeros(count, np.int32),
    )
    ground_truth = OfficialObjects(
        xywh=np.array([[0.0, 0, 9, 9]]),
        labels=np.zeros(1, np.int32),
        ignore=np.zeros(1, bool),
        areas=np.full(1, 81.0),
    )
    one = match(found, ground_truth)
    assert one.right.sum() == 1 and one.right[0, -1]  # the best, which comes last here
    assert one.neither[0, :3].all() and not one.neither[0, 3:].any()
