"""Folders of labelled images as tools for YOLO write them, and what all folders hold."""

import json

import cv2
import numpy as np

SIZES = {"a": (50, 64), "b": (30, 40), "c": (50, 64)}
"""Height and width of each image."""

GROUND_TRUTH = {
    "a": [("cat", (10, 20, 30, 40)), ("dog", (0, 0, 64, 25))],
    "b": [("dog", (5, 5, 15, 25))],
    "c": [("cat", (1, 2, 11, 22))],
}
"""Class, and x1 y1 x2 y2 in continuous pixels."""

TRAIN, VAL = ("a", "b"), ("c",)
NAMES = ("cat", "dog")


def png(stem):
    return cv2.imencode(".png", np.zeros((*SIZES[stem], 3), np.uint8))[1].tobytes()


def image(root, path):
    """An image whose size is that of its stem's first letter."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png(file.name[0].lower()))


def text(root, path, content):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def yolo_lines(stem, polygons=False):
    height, width = SIZES[stem]
    lines = []
    for name, (x1, y1, x2, y2) in GROUND_TRUTH[stem]:
        if polygons:
            points = [x1, y1, x2, y1, x2, y2, x1, y2]
            numbers = [value / (width, height)[place % 2] for place, value in enumerate(points)]
        else:
            x, y = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
            numbers = [x, y, (x2 - x1) / width, (y2 - y1) / height]
        lines.append(f"{NAMES.index(name)} " + " ".join(f"{number:.7f}" for number in numbers))
    return "\n".join(lines) + "\n"


def yolo_roboflow(root):
    for split, stems in (("train", TRAIN), ("valid", VAL)):
        for stem in stems:
            image(root, f"{split}/images/{stem}.png")
            text(root, f"{split}/labels/{stem}.txt", yolo_lines(stem))
    text(root, "README.roboflow.txt", "cells - v1\n==========\n")
    text(
        root,
        "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\n"
        "names: ['cat', 'dog']\n",
    )


def yolo_ultralytics(root):
    for split, stems in (("train", TRAIN), ("val", VAL)):
        for stem in stems:
            image(root, f"images/{split}/{stem}.png")
            text(root, f"labels/{split}/{stem}.txt", yolo_lines(stem))
    image(root, "images/train/background.png")
    text(
        root,
        "pets.yaml",
        "path: /home/me/datasets/pets # of another machine\ntrain: images/train\nval: images/val\ntest:\n"
        "names:\n  0: cat\n  1: dog\n",
    )


def yolo_aliases(root):
    yolo_ultralytics(root)
    text(
        root,
        "pets.yaml",
        "base: &base\n  names: [cat, dog]\nsplit: &split images/train\n<<: *base\ntrain: [*split]\n"
        "val: images/val\n",
    )


def yolo_label_studio(root):
    for stem in SIZES:
        image(root, f"images/{stem}.png")
        text(root, f"labels/{stem}.txt", yolo_lines(stem))
    text(root, "classes.txt", "cat\ndog\n")
    text(root, "notes.json", {"categories": [{"id": 0, "name": "cat"}], "info": {"year": 2024}})


def yolo_labelimg(root):
    for stem in SIZES:
        image(root, f"pictures/{stem}.PNG")
        text(root, f"pictures/{stem}.txt", yolo_lines(stem))
    text(root, "pictures/classes.txt", "cat\ndog\n")


def yolo_polygons(root):
    for split, stems in (("train", TRAIN), ("val", VAL)):
        for stem in stems:
            image(root, f"{split}/images/{stem}.png")
            text(root, f"{split}/labels/{stem}.txt", yolo_lines(stem, polygons=True))
    text(root, "classes.txt", "cat\ndog\n")


def yolo_darknet(root):
    """CVAT's export called YOLO 1.1."""
    for split, stems in (("train", TRAIN), ("valid", VAL)):
        for stem in stems:
            image(root, f"obj_{split}_data/{stem}.png")
            text(root, f"obj_{split}_data/{stem}.txt", yolo_lines(stem))
        text(root, f"{split}.txt", "".join(f"data/obj_{split}_data/{s}.png\n" for s in stems))
    text(root, "obj.names", "cat\ndog\n")
    text(root, "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n")
