"""The objects of a labelled set, in pixels of the original images; no image is opened."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jdet.data.sources.annotations import first_reasons
from jdet.types import DataError, Source

SAME = 0.9
"""IoU from which on two boxes are around one object."""


class SetObjects(NamedTuple):
    """Objects of a set.

    Attributes:
        boxes: float64 [n, 4], x1 y1 x2 y2, pixels of the original image; of images of known size.
        labels: int [n].
        image: int [n], index of the image.
        sizes: float64 [n, 2], width and height of the image.
        counts: int [images], objects of every image of the set, of unknown size too.
    """

    boxes: np.ndarray
    labels: np.ndarray
    image: np.ndarray
    sizes: np.ndarray
    counts: np.ndarray

    @property
    def most(self) -> int:
        """Objects in the image that has most, 1 at least."""
        return int(max(self.counts.max(initial=0), 1))

    @property
    def sides(self) -> np.ndarray:
        """Square roots of the objects' areas, pixels, float64 [n]."""
        return np.sqrt((self.boxes[:, 2:] - self.boxes[:, :2]).prod(-1))

    @property
    def relative(self) -> np.ndarray:
        """The same relative to their images', float64 [n]."""
        return self.sides / np.sqrt(self.sizes.prod(-1))


def read_set(source: Source) -> SetObjects:
    """Reads the labels of a set; images whose labels cannot be read have no objects.

    Args:
        source: with ``image_size``; objects of images whose size it does not know count for ``counts``
            alone.
    """
    image_size = getattr(source, "image_size", lambda index: None)
    boxes, labels, images, sizes = [], [], [], []
    counts = np.zeros(len(source), int)
    for index in range(len(source)):
        try:
            example = source[index]
        except DataError:  # told, or refused, by whoever reads images
            continue
        counts[index] = len(example.boxes)
        size = image_size(index)
        if size and len(example.boxes):
            boxes.append(np.asarray(example.boxes, float))
            labels.append(np.asarray(example.labels, int))
            images.append(np.full(len(example.boxes), index))
            sizes.append(np.tile(np.array(size[::-1], float), (len(example.boxes), 1)))
    if not boxes:
        none = np.zeros(0, int)
        return SetObjects(np.zeros((0, 4)), none, none, np.zeros((0, 2)), counts)
    return SetObjects(
        boxes=np.concatenate(boxes),
        labels=np.concatenate(labels),
        image=np.concatenate(images),
        sizes=np.concatenate(sizes),
        counts=counts,
    )


def check_any(objects: SetObjects, source: Source) -> None:
    """Refuses a set without objects.

    Raises:
        DataError: with the first reasons why labels were dropped.
    """
    if not len(objects.labels):
        name = getattr(source, "name", type(source).__name__)
        raise DataError(
            f"{name}: the {len(source)} training images carry no boxes; there is nothing to learn"
            f"{first_reasons(getattr(source, 'defects', ()))}"
        )


def overlapping(boxes: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of objects of one image whose IoU is ``SAME`` or more.

    Args:
        boxes: [n, 4], image by image.
        counts: int [images], objects of each image.

    Returns:
        Rows int [p, 2], and IoUs float [p].
    """
    whole, pairs, overlaps = boxes, [], []
    ends = np.cumsum(counts)
    for first, end in zip(ends - counts, ends):
        if end - first < 2:
            continue
        boxes = whole[first:end]
        order = np.argsort(boxes[:, 0], kind="stable")  # so that only neighbours are compared
        boxes = boxes[order]
        sides = boxes[:, 2:] - boxes[:, :2]
        area = sides.prod(1)
        for step in range(1, len(boxes)):
            one, other = boxes[:-step], boxes[step:]
            # From IoU 0.9 on, left edges are less than a tenth of the width apart.
            near = np.flatnonzero(
                other[:, 0] - one[:, 0] <= (1 / SAME - 1) * sides[:-step, 0] + 1e-9
            )
            if not len(near):
                break
            low = np.maximum(one[near, :2], other[near, :2])
            high = np.minimum(one[near, 2:], other[near, 2:])
            common = np.clip(high - low, 0, None).prod(1)
            iou = common / np.maximum(area[near] + area[near + step] - common, 1e-9)
            hit = np.flatnonzero(iou >= SAME)
            pairs += [(first + order[near[h]], first + order[near[h] + step]) for h in hit]
            overlaps += iou[hit].tolist()
    return np.array(pairs, int).reshape(-1, 2), np.array(overlaps)
