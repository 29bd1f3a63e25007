"""Shapes: a synthetic detection set, drawn on the fly, in which only form tells the classes apart.

Every image is a function of (seed, split, index). Objects of all classes share one distribution
of colours, textures, sizes, aspect ratios and angles. They lie on textured backgrounds, overlap
each other, and stand among clutter made in the same way: blobs, shards, arcs, bars and corners. A
detector that finds things without recognising their form scores low.
"""

from __future__ import annotations

import zlib

import numpy as np

from jdet.data.readers.settings import USUAL, ImageSettings
from jdet.data.readers.survey import declared
from jdet.data.segmentation import Rle, encode
from jdet.data.sources.annotations import Defect
from jdet.data.sources.shapes_drawing import background, clutter, coverage, outlines, paint, pose
from jdet.types import Example, ImageKind, require

SHAPES = ("disc", "square", "triangle", "star", "cross", "ring", "heart", "arrow", "crescent")

_TRIES = 12  # positions tried before an object or a piece of clutter is given up


class ShapesSource:
    """Images of flat shapes with boxes around what is visible of them.

    Images differ in size: height and width are drawn from ``size … 1.25 size``. Boxes are tight
    around the rendered, visible pixels. The splits of a seed share no image.

    Args:
        size: shortest side of an image in pixels.
        count: number of images.
        seed: of the whole set; ``split`` and the index are mixed in.
        split: any name; ``"train"`` and ``"test"`` by custom.
        num_classes: the first so many of ``SHAPES``.
        frequencies: of the classes among the objects, relative to each other; (): all are alike.
        min_scale: smallest object, as square root of the area of its box over ``size``.
        max_scale: largest object. Scales are log-uniform in between.
        max_objects: most objects in an image; 1 … ``max_objects`` are equally likely to be tried.
        empty: share of images without objects (clutter stays).
        clutter: pieces of clutter in an image, 0 … twice this number.
        occlusion: largest hidden share of any object's pixels; an item that would hide more is put
            elsewhere, or left out.
        rotation: largest angle of an object in degrees, either way; clutter turns freely.
        contrast: smallest RGB distance (0 … 441) between an object's colour and what lies below.
        noise: largest standard deviation of the grain, in grey levels.
        keep_masks: hand out the visible pixels of each object in ``Example.masks``.
        image_settings: what the config says of images.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self,
        size: int = 96,
        count: int = 2000,
        seed: int = 0,
        split: str = "train",
        num_classes: int = 6,
        *,
        min_scale: float = 0.08,
        max_scale: float = 0.8,
        max_objects: int = 8,
        empty: float = 0.03,
        clutter: float = 4.0,
        occlusion: float = 0.5,
        rotation: float = 20.0,
        contrast: float = 60.0,
        noise: float = 8.0,
        frequencies: tuple[float, ...] = (),
        keep_masks: bool = False,
        image_settings: ImageSettings = USUAL,
    ):
        require(16 <= size, "ShapesSource: size", size, "at least 16 pixels")
        require(count >= 1, "ShapesSource: count", count, "at least 1")
        require(seed >= 0, "ShapesSource: seed", seed, "at least 0")
        known = ", ".join(SHAPES)
        require(
            1 <= num_classes <= len(SHAPES),
            "ShapesSource: num_classes",
            num_classes,
            f"in 1 … {len(SHAPES)} ({known})",
        )
        scales = (min_scale, max_scale)
        require(
            0 < min_scale <= max_scale <= 1,
            "ShapesSource: min_scale, max_scale",
            scales,
            "two numbers with 0 < min ≤ max ≤ 1",
        )
        require(
            min_scale * size >= 4,
            "ShapesSource: min_scale",
            min_scale,
            f"at least 4 pixels of {size}",
        )
        require(1 <= max_objects <= 100, "ShapesSource: max_objects", max_objects, "in 1 … 100")
        require(0 <= empty <= 1, "ShapesSource: empty", empty, "in 0 … 1")
        require(clutter >= 0, "ShapesSource: clutter", clutter, "at least 0")
        require(0 <= occlusion < 1, "ShapesSource: occlusion", occlusion, "at least 0 and below 1")
        require(0 <= rotation <= 180, "ShapesSource: rotation", rotation, "in 0 … 180")
        require(0 <= contrast <= 120, "ShapesSource: contrast", contrast, "in 0 … 120")
        require(noise >= 0, "ShapesSource: noise", noise, "at least 0")
        fine = len(frequencies) in (0, num_classes) and all(0 < f < 1e9 for f in frequencies)
        require(
            fine, "ShapesSource: frequencies", frequencies, f"{num_classes} numbers above 0, or ()"
        )
        self._shares = np.array(frequencies) / sum(frequencies) if frequencies else None
        self.image_settings = image_settings
        self.image_kind = declared(ImageKind(), image_settings)
        self.class_names = SHAPES[:num_classes]
        self.split = split
        self._size, self._count, self._seed = size, count, seed
        self._scales = np.log(scales)
        self._max_objects, self._empty, self._clutter = max_objects, empty, clutter
        self._occlusion, self._rotation = occlusion, np.radians(rotation)
        self._contrast, self._noise = contrast, noise
        self.has_masks = keep_masks

    @property
    def defects(self) -> list[Defect]:
        """None: nothing is labelled by hand."""
        return []

    def __len__(self) -> int:
        return self._count

    def describe(self) -> str:
        """One line: images, classes, sizes."""
        smallest, largest = np.exp(self._scales) * self._size
        return (
            f"shapes {self.split}: {self._count} images of {self._size} … "
            f"{self._size * 5 // 4} pixels drawn on the fly, up to {self._max_objects} objects of "
            f"{smallest:.0f} … {largest:.0f} pixels ({', '.join(self.class_names)}); defects: none"
        )

    def image_size(self, index: int) -> tuple[int, int]:
        """Height and width, without drawing the image."""
        return self._image_size(self._generator(index))

    def _generator(self, index: int) -> np.random.Generator:
        if not -self._count <= index < self._count:
            raise IndexError(f"shapes {self.split}: image {index} of {self._count}")
        split = zlib.crc32(self.split.encode())
        return np.random.default_rng([self._seed, split, int(index) % self._count])

    def _image_size(self, rng: np.random.Generator) -> tuple[int, int]:
        height, width = rng.integers(self._size, self._size * 5 // 4, 2, endpoint=True).tolist()
        return height, width

    def __getitem__(self, index: int) -> Example:
        rng = self._generator(index)
        height, width = self._image_size(rng)
        canvas = background(rng, height, width)
        scene = _Scene(height, width, self._occlusion)
        labels = []
        for label, scale in self._draw_items(rng):
            if label < 0:
                mask = coverage(pose(rng, clutter(rng), scale, np.pi))
            else:
                outline = outlines()[self.class_names[label]]
                mask = coverage(pose(rng, outline, scale, self._rotation))
            spot = scene.place(rng, mask, is_object=label >= 0)
            if spot is not None:
                rows, columns, part = spot
                paint(rng, canvas[rows, columns], part, self._contrast)
                labels += [label] if label >= 0 else []
        canvas += rng.uniform(0, self._noise) * rng.standard_normal((height, width, 1), np.float32)
        boxes = scene.boxes()
        return Example(
            id=f"{self.split}-{self._seed}-{int(index) % self._count:06d}",
            image=np.clip(canvas, 0, 255).astype(np.uint8),
            boxes=boxes,
            labels=np.array(labels, np.int32),
            ignore=np.zeros(len(labels), bool),
            areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
            masks=scene.masks() if self.has_masks else None,
        )

    def _draw_items(self, rng: np.random.Generator) -> list[tuple[int, float]]:
        """Labels (-1: clutter) and scales in pixels, roughly from large to small."""
        low, high = self._scales
        n = int(rng.integers(1, self._max_objects, endpoint=True)) * (rng.random() >= self._empty)
        m = int(rng.integers(0, int(2 * self._clutter), endpoint=True))
        classes = len(self.class_names)
        if self._shares is None:
            labels = rng.integers(0, classes, n)
        else:
            labels = rng.choice(classes, n, p=self._shares)
        labels = np.concatenate([labels, np.full(m, -1)])
        scales = np.exp(low + (high - low) * rng.random((2, n + m)).mean(axis=0)) * self._size
        order = np.argsort(-scales * np.exp(rng.normal(0, 0.3, n + m)))
        return list(zip(labels[order].tolist(), scales[order].tolist(), strict=True))


class _Scene:
    """Which object each pixel shows; decides where the next item may lie."""

    def __init__(self, height: int, width: int, occlusion: float):
        self._owner = np.zeros((height, width), np.uint8)  # 0: none, else position + 1
        self._occlusion = occlusion
        self._whole = np.zeros(1, np.int64)  # pixels of each owner when it was drawn
        self._visible = np.zeros(1, np.int64)  # and those not covered since

    def place(
        self, rng: np.random.Generator, mask: np.ndarray, is_object: bool
    ) -> tuple[slice, slice, np.ndarray] | None:
        """Puts an item on top of what is there, unless that hides too much wherever it is tried.

        Up to a tenth of its height and width may lie outside the image.

        Returns:
            Rows and columns of the image and the part of ``mask`` that falls on them, or None.
        """
        extent, n = np.array(mask.shape), len(self._whole)
        overhang = extent // 10
        room = np.maximum(self._owner.shape - extent + overhang, -overhang)
        for top, left in rng.integers(-overhang, room, (_TRIES, 2), endpoint=True).tolist():
            rows, first_row = _overlap(top, mask.shape[0], self._owner.shape[0])
            columns, first_column = _overlap(left, mask.shape[1], self._owner.shape[1])
            part = mask[first_row:, first_column:][: rows.stop - rows.start]
            part = part[:, : columns.stop - columns.start]
            solid = part > 0.5
            owner = self._owner[rows, columns]
            visible = self._visible - np.bincount(owner[solid], minlength=n)
            if (visible >= (1 - self._occlusion) * self._whole)[1:].all():
                break
        else:
            return None
        owner[solid] = n if is_object else 0
        self._visible = visible
        if is_object:
            self._visible = np.append(visible, solid.sum())
            self._whole = np.append(self._whole, solid.sum())
        return rows, columns, part

    def boxes(self) -> np.ndarray:
        """Boxes around the visible pixels of each object, float32 [n, 4], x1 y1 x2 y2."""
        boxes = np.zeros((len(self._whole) - 1, 4), np.float32)
        for i, box in enumerate(boxes):
            own = self._owner == i + 1
            columns, rows = np.flatnonzero(own.any(axis=0)), np.flatnonzero(own.any(axis=1))
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return boxes

    def masks(self) -> tuple[Rle, ...]:
        """The visible pixels of each object."""
        return tuple(encode(self._owner == i) for i in range(1, len(self._whole)))


def _overlap(start: int, length: int, limit: int) -> tuple[slice, int]:
    """Part of ``start … start + length`` within ``0 … limit``, and where in the item it begins."""
    return slice(max(start, 0), min(start + length, limit)), max(-start, 0)
