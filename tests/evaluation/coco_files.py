"""Random COCO files against pycocotools, which reads them from disk: is every number the same?

Files have ties, crowds, boxes over the border and without extent, odd areas, classes and images without
objects. The suite compares some; ``python -m tests.evaluation.coco_files --files 500`` compares so many and
prints the largest difference of any number.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import cv2
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jdet.data.sources.coco import CocoSource
from jdet.evaluation.coco_ap import ENGINES, STATS, CocoEvaluator
from jdet.types import ImageDetections

AREAS = (0.0, 1.5, 1023.99997, 1024.0, 1024.00003, 9216.0, 9216.0004, 5000.0)
SIZE = 200


def random_boxes(rng, count):
    """x y width height, most on a coarse grid, so that many overlap alike."""
    low = np.round(rng.uniform(-20, SIZE, (count, 2)) / 10) * 10 + rng.choice([0, 0.25], (count, 2))
    sides = rng.choice([0, 5, 10.5, 32, 40, 96, 120, 300], (count, 2))
    return np.concatenate([low, sides], 1)


def random_file(rng):
    """A COCO annotation file and detections, as JSON holds them."""
    ids = rng.permutation(np.arange(1, 60))[: rng.integers(1, 7)].tolist()
    categories = [{"id": i, "name": f"c{i}"} for i in (7, 3, 11)[: rng.integers(1, 4)]]
    images = [{"id": i, "file_name": f"{i}.jpg", "height": SIZE, "width": SIZE} for i in ids]
    annotations, found = [], []
    for image in ids:
        boxes = random_boxes(rng, rng.integers(0, 6))
        for box in boxes.tolist():
            area = box[2] * box[3] if rng.random() < 0.5 else float(rng.choice(AREAS))
            one = {"id": len(annotations) + 1, "image_id": image, "bbox": box, "area": area}
            one["category_id"] = int(rng.choice([c["id"] for c in categories]))
            annotations.append({**one, "iscrowd": int(rng.random() < 0.2)})
        own = [a["bbox"] for a in annotations if a["image_id"] == image]
        near = [np.array(own)[rng.integers(0, len(own), rng.integers(0, 9))]] if own else []
        boxes = np.concatenate([*near, random_boxes(rng, rng.integers(0, 5))])
        boxes[:, 2:] *= rng.choice([1, 0.75, 0.5, 1.25], (len(boxes), 1))
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1).astype(np.float32)
        scores = rng.choice([0.25, 0.5, 0.75, rng.random()], len(boxes)).astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        labels = rng.integers(0, len(categories), len(boxes))
        found.append((image, corners[order], scores[order], labels[order]))
    annotations = [annotations[i] for i in rng.permutation(len(annotations))]
    return {"images": images, "categories": categories, "annotations": annotations}, found


def differences(seed, folder, engine, **options):
    """Largest difference of the twelve numbers and the classes' from pycocotools' own, images shuffled."""
    rng = np.random.default_rng(seed)
    file, found = random_file(rng)
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    for one in file["images"]:
        if not (place := Path(folder) / one["file_name"]).exists():
            cv2.imwrite(str(place), image)
    path = Path(folder) / "instances.json"
    path.write_text(json.dumps(file))
    source = CocoSource(str(path), image_root=str(folder), on_error="skip")
    evaluator = CocoEvaluator(source.class_names, engine=engine, **options)
    by_id = {str(image): rest for image, *rest in found}
    for index in rng.permutation(len(source)).tolist():
        ground_truth = source[index]
        boxes, scores, labels = by_id.get(
            ground_truth.id, (np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
        )
        evaluator.add(
            ImageDetections(id=ground_truth.id, boxes=boxes, scores=scores, labels=labels),
            ground_truth,
        )
    ours = evaluator.result()

    records = [
        {
            "image_id": image,
            "category_id": source.category_ids[label],
            "bbox": [*box[:2], box[2] - box[0], box[3] - box[1]],
            "score": float(score),
        }
        for image, boxes, scores, labels in found
        for box, score, label in zip(boxes.astype(float).tolist(), scores, labels, strict=True)
    ]
    with redirect_stdout(io.StringIO()):
        official = COCO(str(path))
        nothing = {**file, "annotations": []}
        if records:
            theirs = official.loadRes(records)
        else:
            theirs = COCO()
            theirs.dataset = nothing
            theirs.createIndex()
        check = COCOeval(official, theirs, "bbox")
        check.evaluate(), check.accumulate(), check.summarize()
    pairs = [(ours[f"coco/{name}"], value) for name, value in zip(STATS, check.stats, strict=True)]
    for k, category in enumerate(sorted(source.category_ids)):
        of_class = check.eval["precision"][:, :, k, 0, 2]
        name = source.class_names[source.category_ids.index(category)]
        value = of_class[of_class > -1].mean() if (of_class > -1).any() else -1
        pairs.append((ours[f"coco/AP/{name}"], value))
    return max(
        math.inf if math.isnan(a) != (b < 0) else 0.0 if b < 0 else abs(a - b) for a, b in pairs
    )


def main():
    """Prints a line per engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=500)
    files = parser.parse_args().files
    with tempfile.TemporaryDirectory() as folder:
        for engine in ENGINES:
            found = np.array([differences(seed, folder, engine) for seed in range(files)])
            unequal = np.flatnonzero(found > 1e-12)
            print(
                f"{engine:12} {files} files, largest difference {found.max():g}, "
                f"{len(unequal)} above 1e-12: seeds {unequal[:10].tolist()}",
                flush=True,
            )


if __name__ == "__main__":
    main()
