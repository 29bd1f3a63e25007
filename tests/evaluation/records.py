"""Records made from plain numbers, and the evaluation fixtures of ../shared/data."""

import json
from pathlib import Path

import numpy as np
import pytest

from jdet.types import Example, ImageDetections

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "data" / "eval_fixtures"

needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason=f"{FIXTURES} is not there")


def example(id, boxes, labels, *, ignore=None, areas=None):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    ignore = np.zeros(len(boxes), bool) if ignore is None else np.asarray(ignore, bool)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) if areas is None else areas
    labels = np.asarray(labels, np.int32)
    return Example(
        id=id,
        image="",
        boxes=boxes,
        labels=labels,
        ignore=ignore,
        areas=np.asarray(areas, np.float32),
    )


def detections(id, boxes, labels, scores):
    """Sorted best first, as detectors return them."""
    scores = np.asarray(scores, np.float32)
    order = np.argsort(-scores, kind="stable")
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    labels = np.asarray(labels, np.int32)
    return ImageDetections(id=id, boxes=boxes[order], scores=scores[order], labels=labels[order])


def from_xywh(boxes):
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def read_json(*parts):
    return json.loads(FIXTURES.joinpath(*parts).read_text())


def coco_fixture(folder):
    """(class names, detections, ground truth) of a fixture folder in COCO's form, images by id."""
    ground_truth, found = read_json(folder, "gt.json"), read_json(folder, "dets.json")
    label_of = {c["id"]: i for i, c in enumerate(ground_truth["categories"])}
    images, examples = [], []
    for id in sorted(image["id"] for image in ground_truth["images"]):
        own = [a for a in ground_truth["annotations"] if a["image_id"] == id]
        mine = [d for d in found if d["image_id"] == id]
        examples.append(
            example(
                str(id),
                from_xywh([a["bbox"] for a in own]),
                [label_of[a["category_id"]] for a in own],
                ignore=[a["iscrowd"] for a in own],
                areas=[a["area"] for a in own],
            )
        )
        images.append(
            detections(
                str(id),
                from_xywh([d["bbox"] for d in mine]),
                [label_of[d["category_id"]] for d in mine],
                [d["score"] for d in mine],
            )
        )
    return [c["name"] for c in ground_truth["categories"]], images, examples
