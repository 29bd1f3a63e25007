"""Folders of runs as an evaluation leaves them, written by hand: no network is trained."""

from __future__ import annotations

import json

import numpy as np

from jdet.data.segmentation import encode_part
from jdet.evaluation.results import Results
from jdet.types import Example, ImageDetections, ImageKind

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&"
NAMES = ("猫", HOSTILE, "سيارة")


class ListSource:
    """A source of ready examples."""

    def __init__(self, examples, class_names, kind=None):
        self.examples, self.class_names = examples, tuple(class_names)
        self.image_kind = kind or ImageKind()

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]


def scene(number, size=(60, 80), classes=3, masks=False, channels=3, dtype=np.uint8):
    """An image of two rectangles, found in part: an object each found, missed, and found wrongly."""
    rng = np.random.default_rng(number)
    height, width = size
    top = np.iinfo(dtype).max
    image = rng.integers(0, top // 2, (height, width, channels)).astype(dtype)
    boxes = np.array([[5, 5, 25, 30], [40, 10, 70, 40], [10, 35, 30, 55]], np.float32)
    labels = np.array([number % classes, (number + 1) % classes, 0], np.int32)
    for x1, y1, x2, y2 in boxes.astype(int):
        image[y1:y2, x1:x2] = top
    shapes = None
    if masks:
        shapes = tuple(_ellipse(box, height, width) for box in boxes)
    example = Example(
        id=f"image {number}",
        image=image,
        boxes=boxes,
        labels=labels,
        ignore=np.array([False, False, number % 4 == 3]),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        masks=shapes,
    )
    near = boxes + np.float32(1)
    found = ImageDetections(
        id=example.id,
        boxes=np.concatenate([near[:1], near[1:2], near[2:], near[:1] + 12, near[1:2]]),
        scores=np.array([0.95, 0.6 + 0.3 * (number % 2), 0.4, 0.35, 0.2], np.float32),
        labels=np.array([*labels[:2], 0, labels[0], (labels[1] + 1) % classes], np.int32),
        masks=None
        if shapes is None
        else tuple(
            _ellipse(box, height, width) for box in np.concatenate([near, near[:1] + 12, near[1:2]])
        ),
    )
    return example, found


def _ellipse(box, height, width):
    x1, y1, x2, y2 = (int(v) for v in box)
    y, x = np.mgrid[y1 : min(y2, height), x1 : min(x2, width)]
    inside = (2 * (x - x1 + 0.5) / (x2 - x1) - 1) ** 2 + (2 * (y - y1 + 0.5) / (y2 - y1) - 1) ** 2
    return encode_part(inside <= 1, y1, x1, height, width)


def analysis(names, images):
    """Numbers that fit together as ``analysis.json`` has them; not those of the detections."""
    per_class = [
        {
            "class": name,
            "images": 3,
            "objects": 10 + i % 7,
            "ap": None if i == 2 else 0.2 + 0.6 * ((i * 37) % 100) / 100,
            "ap50": None if i == 2 else 0.5,
            "ap75": None if i == 2 else 0.1,
            "threshold": {
                "best_f1": None
                if i == 2
                else {"score": 0.4, "precision": 0.8, "recall": 0.7, "f1": 0.75},
                "at_precision": None
                if i == 2
                else {"wanted": 0.9, "score": 0.7, "precision": 0.9, "recall": 0.5},
            },
        }
        for i, name in enumerate(names)
    ]
    labels = [*names, "background"]
    matrix = [
        [20 * (i == j) + (i * 7 + j * 3) % 4 for j in range(len(labels))]
        for i in range(len(labels))
    ]
    steps = np.linspace(0, 1, 101)
    return {
        "version": 1,
        "iou": 0.5,
        "images": images,
        "classes": list(names),
        "per_class": per_class,
        "by_size": {
            "small": {"objects": 12, "ap": 0.2, "ap50": 0.4},
            "medium": {"objects": 9, "ap": 0.5, "ap50": 0.8},
            "large": {"objects": 0, "ap": None, "ap50": None},
        },
        "pr_curves": {
            name: {
                "recall": steps.tolist(),
                "precision": (1 - steps ** (2 + i)).tolist(),
                "score": (1 - steps).tolist(),
            }
            for i, name in enumerate(names[:2])
        },
        "tide": {
            "classification": 0.05,
            "localisation": 0.11,
            "both": 0.0,
            "duplicate": 0.01,
            "background": 0.02,
            "missed": 0.2,
        },
        "confusion": {"labels": labels, "score": 0.4, "matrix": matrix},
        "calibration": {
            "ece": 0.07,
            "bins": [
                {
                    "low": i / 10,
                    "high": (i + 1) / 10,
                    "score": i / 10 + 0.05,
                    "precision": None if i == 3 else i / 12,
                    "count": 0 if i == 3 else 10 + i,
                }
                for i in range(10)
            ],
        },
        "slices": [{"name": HOSTILE, "images": 2, "objects": 5, "ap": 0.4, "ap50": 0.7}],
        "image_list": [],
        "label_suspects": [
            {
                "image": 2,
                "file": "image 1.png",
                "box": [5, 5, 25, 30],
                "kind": "wrong_class",
                "class": names[0],
                "other": names[-1],
                "score": 0.95,
            },
            {
                "image": 999,
                "file": "elsewhere.png",
                "box": [1, 2, 3, 4],
                "kind": "unlabelled",
                "class": names[0],
                "other": None,
                "score": 0.9,
            },
        ],
    }


def metrics_log(folder, steps=200, evaluated=True):
    lines = [
        {"step": s, "loss": 3 * 0.98**s + 0.1 * (s % 5), "loss/cls": 2 * 0.98**s, "lr": 0.01}
        for s in range(1, steps + 1)
    ]
    if evaluated:
        lines += [{"step": steps, "voc07/mAP": 0.7, f"voc07/AP/{HOSTILE}": 0.6, "coco/AP": None}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)


def begin(folder, config, *, status="running", steps=200):
    """A run that has logged and not evaluated."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.to_json())
    record = {
        "status": status,
        "steps": steps,
        "num_examples": 50,
        "train_images": 20,
        "started": "2026-11-01T10:00:00+00:00",
        "versions": {"jdet": "0.1.0", "commit": "abc"},
        "devices": 1,
        "device_kind": "cpu",
    }
    (folder / "run.json").write_text(json.dumps(record))
    metrics_log(folder, steps, evaluated=False)


def evaluated(folder, config, scenes, *, kind=None, analysed=True):
    """A run that is finished and evaluated; returns its evaluation set."""
    names = config.class_names
    begin(folder, config, status="completed")
    record = json.loads((folder / "run.json").read_text())
    more = {"step": 200, "ended": "2026-11-01T11:30:00+00:00", "peak_memory": 3 << 30}
    (folder / "run.json").write_text(json.dumps(record | more))
    metrics_log(folder)
    source = ListSource([example for example, _ in scenes], names, kind)
    results = Results(source)
    for index, (_, found) in enumerate(scenes):
        results.add(index, found)
    results.write(folder, range(1, len(names) + 1))
    report = {
        "step": 200,
        "metrics": {"voc07/mAP": 0.7, f"voc07/AP/{names[0]}": 0.6, "coco/AP": None},
        "settings": {"images": len(scenes) + 1, "protocols": {"voc": "VOC devkit"}},
        "seconds_per_image": 0.05,
    }
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "defects.txt").write_text(f"train\t{HOSTILE}\tskipped\tbox is empty\n" * 3)
    finding = {"name": "x", "severity": "warning", "count": 3, "title": f"3 {HOSTILE} objects"}
    finding |= {"consequence": "AP is lower", "remedy": "look at them", "cases": []}
    (folder / "doctor.json").write_text(json.dumps({"findings": [finding]}))
    if analysed:
        held = analysis(names, len(scenes))
        (folder / "analysis.json").write_text(json.dumps(held))
    return source
