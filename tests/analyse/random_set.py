"""Random images with objects and detections: crowds, ties, empty images, classes that are confused."""

import numpy as np

from jdet.analyse.scored import ScoredImage
from jdet.types import Example, ImageDetections, OfficialObjects

NAMES = ("ant", "bee", "cat", "dog")


def random_set(
    seed,
    images=30,
    detections=14,
    objects=5,
    *,
    crowds=0.1,
    noise=0.1,
    absent=1,
    ties=True,
    ground_truth=None,
):
    """``ScoredImage`` records with ids from 1.

    The last ``absent`` classes have no objects; ``ground_truth`` is the seed of the objects where it is
    another.
    """
    classes = len(NAMES)
    there, rng = (np.random.default_rng(seed if s is None else s) for s in (ground_truth, None))
    made = []
    for i in range(images):
        count = int(there.poisson(objects))
        corner = there.uniform(0, 500, (count, 2)).round()
        sides = np.exp(there.uniform(np.log(8), np.log(200), (count, 2))).round(1)
        labels = there.integers(0, classes - absent, count).astype(np.int32)
        ignore = there.random(count) < crowds
        owner = rng.integers(0, max(count, 1), detections)
        near = (rng.random(detections) < 0.6) & (count > 0)
        pad = [np.ones((1, 2)), np.ones((1, 2)), np.zeros(1, int)] if not count else []
        places, sizes, known = pad or (corner, sides, labels)
        low = places[owner] + rng.normal(0, noise, (detections, 2)) * sizes[owner]
        low = np.where(near[:, None], low, rng.uniform(0, 500, (detections, 2)))
        size = sizes[owner] * np.exp(rng.normal(0, 1.5 * noise, (detections, 2)))
        size = np.where(near[:, None], size, rng.uniform(8, 200, (detections, 2)))
        own = near & (rng.random(detections) < 0.8)
        found = np.where(own, known[owner], rng.integers(0, classes, detections))
        scores = (0.5 * rng.beta(2, 2, detections) + 0.5 * near * rng.random(detections)).round(
            2 if ties else 9
        )
        order = np.argsort(-scores, kind="stable")
        made.append(
            ScoredImage(
                id=i + 1,
                name=str(i + 1),
                file=f"{i + 1}.png",
                place=(i, str(i + 1)),
                found=ImageDetections(
                    id=str(i + 1),
                    boxes=np.concatenate([low, low + size], 1).astype(np.float32)[order],
                    scores=scores.astype(np.float32)[order],
                    labels=found.astype(np.int32)[order],
                ),
                ground_truth=OfficialObjects(
                    xywh=np.concatenate([corner, sides], 1),
                    labels=labels,
                    ignore=ignore,
                    areas=sides.prod(1),
                    rank=i,
                ),
            )
        )
    return made


def example_of(image):
    """As a source yields it."""
    nothing = np.zeros(0)
    return Example(
        id=image.name,
        image=image.file,
        boxes=np.zeros((0, 4), np.float32),
        labels=nothing.astype(np.int32),
        ignore=nothing.astype(bool),
        areas=nothing.astype(np.float32),
        official=image.ground_truth,
    )


def evaluated(images, evaluator):
    for image in images:
        evaluator.add(image.found, example_of(image))
    return evaluator


def iou(box, other, crowd=False):
    """Of two x y width height, one number at a time."""
    width = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    height = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    area, shared = box[2] * box[3], width * height
    return shared / (area if crowd else area + other[2] * other[3] - shared)


def xywh(boxes):
    boxes = np.asarray(boxes, float)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
