"""COCO average precision of 5,000 images with 100 detections each, by both engines.

    python -m benchmarks.coco_ap [--images=5000]

One JSON line: CPU seconds of adding the images and of each engine's result, and the largest difference
between their numbers.
"""

import argparse
import json
import time

import numpy as np

from jdet.evaluation.coco_ap import ENGINES, CocoEvaluator
from jdet.types import Example, ImageDetections

CLASSES = 80


def images(count):
    """Seven objects per image, as in COCO, each found up to six times, and random detections."""
    rng = np.random.default_rng(0)
    for index in range(count):
        low = rng.uniform(0, 500, (7, 2))
        boxes = np.concatenate([low, low + rng.uniform(5, 200, (7, 2))], 1).astype(np.float32)
        labels = rng.integers(0, CLASSES, 7).astype(np.int32)
        areas = 0.7 * (boxes[:, 2:] - boxes[:, :2]).prod(1)
        ignore = rng.random(7) < 0.01
        ground_truth = Example(
            id=str(index), image="", boxes=boxes, labels=labels, ignore=ignore, areas=areas
        )
        source = rng.integers(0, 7, 100)
        found = boxes[source] + rng.normal(0, 12, (100, 4)).astype(np.float32)
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        guessed = np.where(rng.random(100) < 0.5, labels[source], rng.integers(0, CLASSES, 100))
        scores = -np.sort(-rng.random(100)).astype(np.float32)
        labels = guessed.astype(np.int32)
        yield (
            ImageDetections(id=str(index), boxes=found, scores=scores, labels=labels),
            ground_truth,
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000)
    options = parser.parse_args()
    made = list(images(options.images))
    names = tuple(f"class {k}" for k in range(CLASSES))
    result, numbers = {"what": "coco_ap", "images": options.images, "detections": 100}, []
    for engine in ENGINES:
        evaluator = CocoEvaluator(names, engine=engine)
        start = time.process_time()
        for found, ground_truth in made:
            evaluator.add(found, ground_truth)
        middle = time.process_time()
        metrics = evaluator.result()
        result["add_s"] = round(middle - start, 2)
        result[f"{engine}_s"] = round(time.process_time() - middle, 2)
        numbers.append(np.array(list(metrics.values())))
    result["coco/AP"] = metrics["coco/AP"]
    result["largest_difference"] = float(np.nanmax(np.abs(numbers[0] - numbers[1])))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
