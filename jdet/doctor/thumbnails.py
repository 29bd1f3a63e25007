"""Small images of the places that findings name, as text that a page holds itself."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import cv2
import numpy as np
from ml_collections import ConfigDict

from jdet.data.reader import Reader
from jdet.doctor.findings import Place
from jdet.doctor.splits import Split
from jdet.evaluation.display import Display
from jdet.evaluation.drawing import draw_objects
from jdet.types import Example, ImageKind

SIDE = 320
"""Longer side, pixels."""

QUALITY = 80
"""Of the JPEGs."""

_AROUND, _LEAST = 3.0, 96
"""What is shown of an image: so many times the boxes that are meant, and so many pixels at least."""


class Thumbnails:
    """Draws places of one set."""

    def __init__(self, config: ConfigDict, splits: Mapping[str, Split]):
        """Takes the splits by their names.

        Raises:
            ConfigError: ``config.eval.drawn_bands`` are not there, or percentiles are out of range.
        """
        self._splits = splits
        self._readers = {
            name: Reader(one.source, len(one.ids), "skip") for name, one in splits.items()
        }
        kinds = {name: ImageKind.of(one.source) for name, one in splits.items()}
        self._displays = {name: Display.of(config, kind) for name, kind in kinds.items()}

    def __call__(self, place: Place) -> tuple[str, int, int] | None:
        """A place as the address of a JPEG within the page, its width and height.

        A place with boxes is the part of its image around them, in which nothing else is drawn. None where
        the image cannot be read.
        """
        split = self._splits.get(place.split)
        if split is None or place.index < 0:
            return None
        image = self._readers[place.split][place.index].image
        if image is None:
            return None
        shown = self._displays[place.split](image)
        names = split.source.class_names
        boxes, labels = place.boxes, place.labels
        if boxes is None:
            rows = np.flatnonzero(split.objects.image == place.index)
            all_boxes, labels = (
                split.objects.boxes[rows],
                tuple(split.objects.labels[rows].tolist()),
            )
        else:
            all_boxes = np.array(boxes, float).reshape(-1, 4)
        if boxes:
            x1, y1, x2, y2 = _window(all_boxes, shown.shape[:2])
            shown = np.ascontiguousarray(shown[y1:y2, x1:x2])
            all_boxes = all_boxes - [x1, y1, x1, y1]
        count = len(all_boxes)
        seen = Example(
            id=place.image,
            image=shown,
            boxes=all_boxes,
            labels=np.array(labels, int),
            ignore=np.zeros(count, bool),
            areas=np.ones(count),
        )
        drawn = draw_objects(
            _limited(shown), _scaled(seen, shown), names, side=SIDE, tags=count <= 4
        )
        coded, data = cv2.imencode(
            ".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        )
        if not coded:
            return None
        text = base64.b64encode(data.tobytes()).decode("ascii")
        return f"data:image/jpeg;base64,{text}", drawn.shape[1], drawn.shape[0]


def _window(boxes: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of an image around some boxes: x1 y1 x2 y2, whole pixels inside it."""
    limit = np.array(size[::-1])
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    side = max(_AROUND * float((high - low).max()), _LEAST)
    half = np.minimum(side, limit) / 2
    centre = np.clip((low + high) / 2, half, limit - half)
    first = np.floor(np.maximum(centre - half, 0)).astype(int)
    end = np.ceil(np.minimum(centre + half, limit)).astype(int)
    (x1, y1), (x2, y2) = first.tolist(), np.maximum(end, first + 1).tolist()
    return x1, y1, x2, y2


def _limited(image: np.ndarray) -> np.ndarray:
    """An image of at most twice ``SIDE``, so that what is drawn costs little."""
    scale = 2 * SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _scaled(example: Example, image: np.ndarray) -> Example:
    """Its boxes in pixels of the limited image."""
    scale = min(1.0, 2 * SIDE / max(image.shape[:2]))
    return example._replace(boxes=example.boxes * scale)
