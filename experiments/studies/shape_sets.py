"""Sets of drawn images as folders on disk, for studies that take folders: COCO's files and PNG images."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jdet import atomic_files
from jdet.data.sources.shapes import SHAPES, ShapesSource

SETS: dict[str, dict[str, Any]] = {
    "shapes_few": dict(size=192, num_classes=3, max_objects=4, splits=(40, 200)),
    "shapes_many_classes": dict(
        size=192, num_classes=len(SHAPES), max_objects=6, splits=(400, 200)
    ),
    "shapes_tiny": dict(
        size=384,
        num_classes=3,
        max_objects=30,
        min_scale=0.015,
        max_scale=0.04,
        clutter=10,
        splits=(200, 100),
    ),
}
"""Arguments of ``ShapesSource``, and images of training and evaluation."""

CARDS = "shapes_cards"
"""Six kinds of cards that differ in the small marks in two of their corners alone, 300 images."""

CARD_IMAGES = (240, 60)
CARD_SIDE, MARK = 256, 3
"""Side of the images of cards; radius of a mark, pixels."""

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Image uint8 [H, W, 3], boxes [n, 4] and labels [n]."""


def make(name: str, folder: Path) -> Path:
    """Draws a set into a folder, once; returns the folder.

    Args:
        name: one of ``SETS``, or ``CARDS``.
        folder: where; made if it is not there.
    """
    counts = CARD_IMAGES if name == CARDS else SETS[name]["splits"]
    classes = (
        [f"{n} marks" for n in range(1, 7)]
        if name == CARDS
        else list(SHAPES[: SETS[name]["num_classes"]])
    )
    for split, count in zip(("train", "val"), counts, strict=True):
        labels = folder / "annotations" / f"instances_{split}.json"
        if not labels.exists():  # written last
            images = cards(split, count) if name == CARDS else shapes(name, split, count)
            _write(folder / split, labels, images, classes)
    return folder


def shapes(name: str, split: str, count: int) -> Iterable[Drawn]:
    """The images of a split of one of ``SETS``."""
    values = {key: value for key, value in SETS[name].items() if key != "splits"}
    source = ShapesSource(**values, count=count, split=split)
    for index in range(count):
        example = source[index]
        yield np.asarray(example.image), example.boxes, example.labels


def cards(split: str, count: int) -> Iterable[Drawn]:
    """Images of one to three large cards; a card of class k has k + 1 small marks in two corners.

    All else is alike: size, colours, and the disc in the middle.
    """
    for index in range(count):
        rng = np.random.default_rng([7, split == "train", index])
        image = np.full((CARD_SIDE, CARD_SIDE, 3), rng.integers(40, 120, 3), np.uint8)
        boxes, labels = [], []
        for _ in range(int(rng.integers(1, 4))):
            side = rng.integers(90, 110, 2)
            x, y = (int(rng.integers(2, CARD_SIDE - length - 2)) for length in side)
            box = (x, y, x + int(side[0]), y + int(side[1]))
            if any(
                min(box[2], b[2]) > max(box[0], b[0]) and min(box[3], b[3]) > max(box[1], b[1])
                for b in boxes
            ):
                continue
            label = int(rng.integers(6))
            _draw_card(image, box, label + 1, rng)
            boxes.append(box)
            labels.append(label)
        noise = rng.normal(0, 6, image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
        yield image, np.array(boxes, float).reshape(-1, 4), np.array(labels, int)


def _draw_card(
    image: np.ndarray, box: tuple[int, int, int, int], marks: int, rng: np.random.Generator
) -> None:
    x1, y1, x2, y2 = box
    paper, ink = rng.integers(200, 256, 3).tolist(), rng.integers(0, 90, 3).tolist()
    cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), paper, -1)
    cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), ink, 1)
    cv2.circle(image, ((x1 + x2) // 2, (y1 + y2) // 2), int(rng.integers(12, 20)), ink, -1)
    for mark in range(marks):
        across, down = 8 + 9 * (mark % 3), 8 + 9 * (mark // 3)
        cv2.circle(image, (x1 + across, y1 + down), MARK, ink, -1)
        cv2.circle(image, (x2 - across, y2 - down), MARK, ink, -1)


def _write(images: Path, labels: Path, drawn: Iterable[Drawn], classes: list[str]) -> None:
    images.mkdir(parents=True, exist_ok=True)
    labels.parent.mkdir(parents=True, exist_ok=True)
    records, objects = [], []
    for index, (image, boxes, kinds) in enumerate(drawn):
        name = f"{index:05d}.png"
        cv2.imwrite(str(images / name), image[..., ::-1])
        height, width = image.shape[:2]
        where = f"../{images.name}/{name}"
        records.append(dict(id=index, file_name=where, width=width, height=height))
        for box, kind in zip(np.asarray(boxes).tolist(), np.asarray(kinds).tolist(), strict=True):
            x1, y1, x2, y2 = box
            sides = (x2 - x1, y2 - y1)
            objects.append(
                dict(
                    id=len(objects),
                    image_id=index,
                    category_id=kind + 1,
                    bbox=[x1, y1, *sides],
                    area=sides[0] * sides[1],
                    iscrowd=0,
                )
            )
    categories = [dict(id=k + 1, name=name) for k, name in enumerate(classes)]
    content = dict(images=records, annotations=objects, categories=categories)
    atomic_files.write_text(labels, json.dumps(content))
