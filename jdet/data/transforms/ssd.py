"""SSD's training augmentation as a list of named random operations, and the rendering at its end.

Order and numbers are those of the Caffe SSD training scripts ("new" augmentation, also used by
ScratchDet and DSOD): photometric distortion, zoom-out, batch crop, resize, flip. An operation only
draws numbers and notes its decision in the `Element`; `Finish` then touches the image once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jdet.data.transforms import geometry
from jdet.data.transforms.geometry import (
    INTERPOLATIONS,
    UPRIGHT,
    WHOLE,
    Canvas,
    Orientation,
    Patch,
    Size,
)
from jdet.data.transforms.photometric import NO_DISTORTION, Distortion, draw_distortion
from jdet.data.transforms.resize import Resize
from jdet.types import Batch, ConfigError


@dataclasses.dataclass(frozen=True)
class Augment:
    """Group ``augment`` of the config, checked; the meaning of the keys stands there.

    Raises:
        ConfigError: a value that cannot be.
    """

    name: str
    photometric: float
    expand: float
    expand_ratio: float
    crop: bool
    crop_scale: float
    flip: float
    flip_vertical: float
    rotate: float
    interpolation: str
    mean: tuple[float, float, float]

    def __post_init__(self) -> None:
        for key in ("photometric", "expand", "flip", "flip_vertical", "rotate"):
            self._require(0 <= getattr(self, key) <= 1, key, "in 0 … 1")
        self._require(self.expand_ratio >= 1, "expand_ratio", "at least 1")
        self._require(0 < self.crop_scale <= 1, "crop_scale", "above 0 and at most 1")
        self._require(self.name in ("ssd", "none"), "name", "'ssd' or 'none'")
        kinds = ("random", *INTERPOLATIONS)
        self._require(self.interpolation in kinds, "interpolation", f"one of {', '.join(kinds)}")
        self._require(len(self.mean) == 3, "mean", "three numbers (RGB)")

    def _require(self, condition: bool, key: str, expected: str) -> None:
        if not condition:
            raise ConfigError(f"augment.{key} is {getattr(self, key)!r}; it must be {expected}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Augment:
        """Reads the config group; its keys must be exactly the fields of this class."""
        keys = [field.name for field in dataclasses.fields(cls)]
        if set(config) != set(keys):
            odd = ", ".join(sorted(set(config) ^ set(keys)))
            raise ConfigError(f"augment: unknown or missing key {odd}; keys: {', '.join(keys)}")
        return cls(**{key: config[key] for key in keys})


class Element(NamedTuple):
    """An image on its way: what was read, and what the random operations decided.

    Attributes:
        index: position in the source.
        id: name of the image.
        image: uint8 [H, W, 3], RGB; None for padding and for images that cannot be read.
        boxes: float32 [n, 4] in pixels of ``image``.
        labels: int32 [n].
        ignore: bool [n].
        problem: why the image cannot be read.
        distortion: photometric distortion.
        canvas: zoom-out canvas; None stands for the image itself.
        patch: crop, in fractions of the canvas.
        interpolation: one of the values of `INTERPOLATIONS`; None for that of evaluation.
        turn: mirrors and quarter turn of the output.
        shape: height and width of the network input; None for the first there is.
        short: length of the short side for images that keep their proportions; 0 for that of testing.
    """

    index: int = 0
    id: str = ""
    image: np.ndarray | None = None
    boxes: np.ndarray = np.zeros((0, 4), np.float32)
    labels: np.ndarray = np.zeros(0, np.int32)
    ignore: np.ndarray = np.zeros(0, np.bool_)
    problem: str = ""
    distortion: Distortion = NO_DISTORTION
    canvas: Canvas | None = None
    patch: Patch = WHOLE
    interpolation: int | None = None
    turn: Orientation = UPRIGHT
    shape: Size | None = None
    short: int = 0


Operation = Callable[[Element, np.random.Generator], Element]


def operations(options: Augment, resize: Resize) -> dict[str, Operation]:
    """The random operations in their order, by the name that seeds them."""

    def scale(element: Element, rng: np.random.Generator) -> Element:
        return element._replace(short=resize.draw(rng))

    def photometric(element: Element, rng: np.random.Generator) -> Element:
        return element._replace(distortion=draw_distortion(rng, options.photometric))

    def expand(element: Element, rng: np.random.Generator) -> Element:
        if element.image is None:
            return element
        height, width = element.image.shape[:2]
        probability, ratio = options.expand, options.expand_ratio
        canvas = geometry.expand(rng, width, height, probability=probability, max_ratio=ratio)
        return element._replace(canvas=canvas)

    def crop(element: Element, rng: np.random.Generator) -> Element:
        if element.canvas is None:
            return element
        boxes = geometry.to_fractions(element.boxes, element.canvas)
        return element._replace(patch=geometry.batch_sampler(rng, boxes, options.crop_scale))

    def interpolation(element: Element, rng: np.random.Generator) -> Element:
        kinds = tuple(INTERPOLATIONS)
        kind = options.interpolation
        kind = kinds[int(rng.random() * len(kinds))] if kind == "random" else kind
        return element._replace(interpolation=INTERPOLATIONS[kind])

    def flip(element: Element, rng: np.random.Generator) -> Element:
        return element._replace(turn=element.turn._replace(flip=rng.random() < options.flip))

    def flip_vertical(element: Element, rng: np.random.Generator) -> Element:
        fires = rng.random() < options.flip_vertical
        return element._replace(turn=element.turn._replace(flip_vertical=fires))

    def rotate(element: Element, rng: np.random.Generator) -> Element:
        fires = rng.random() < options.rotate
        return element._replace(turn=element.turn._replace(quarter=fires))

    if options.name == "none":
        return {}
    chain = [photometric, expand, interpolation, flip]
    if options.crop:
        chain.insert(2, crop)
    if options.flip_vertical:
        chain.append(flip_vertical)
    if options.rotate:
        chain.append(rotate)
    if resize.keeps_ratio:
        chain.append(scale)
    return {op.__name__: op for op in chain}


class Row(NamedTuple):
    """One image of a batch, and what is to be told about it.

    Attributes:
        fields: `Batch` without its leading axis.
        id: name of the image.
        problem: why it could not be read; empty if it could.
        dropped: objects left out because there were more than ``max_boxes``.
    """

    fields: Batch
    id: str
    problem: str
    dropped: int


@dataclasses.dataclass(frozen=True)
class Finish:
    """Renders an element and pads its objects.

    Attributes:
        resize: what the network sees of images.
        max_boxes: rows for objects; of more than that the largest are kept. 0 leaves objects out.
        fill: RGB colour beside the image, and of an image that could not be read.
    """

    resize: Resize
    max_boxes: int
    fill: tuple[float, float, float]

    def __call__(self, element: Element) -> Row:
        """Returns the finished row."""
        rows = self.max_boxes
        if element.image is None:
            content = original_size = element.shape or self.resize.shapes[0]
            image = geometry.blank(content, self.fill)
            boxes, keep = element.boxes, np.zeros(0, np.intp)
        else:
            image, content, boxes, keep = self._transform(element, element.image)
            original_size = element.image.shape[:2]
        dropped = max(len(keep) - rows, 0) if rows else 0
        if len(keep) > rows:
            sides = boxes[keep, 2:] - boxes[keep, :2]
            largest = np.argsort(-sides.prod(axis=1), kind="stable")[:rows]
            keep = keep[np.sort(largest)]
        fields = Batch(
            images=image,
            boxes=_pad(boxes, keep, (rows, 4), np.float32),
            labels=_pad(element.labels, keep, (rows,), np.int32),
            valid=np.arange(rows) < len(keep),
            ignore=_pad(element.ignore, keep, (rows,), np.bool_),
            image_sizes=np.array(content, np.int32),
            original_sizes=np.array(original_size, np.int32),
            index=np.int32(element.index),
            real=np.bool_(element.image is not None),
        )
        return Row(fields, element.id, element.problem, dropped)

    def _transform(
        self, element: Element, image: np.ndarray
    ) -> tuple[np.ndarray, Size, np.ndarray, np.ndarray]:
        """Returns the image, its size, all boxes moved with it, and the indices of those still in it."""
        shape, content, placement = _placement(element, self.resize)
        kind = element.interpolation
        if kind is None:
            kind = geometry.plain_interpolation(image, content[1], content[0])
        output = geometry.render(
            image,
            placement,
            content,
            interpolation=kind,
            fill=self.fill,
            turn=element.turn,
            distortion=element.distortion,
        )
        return (
            geometry.pad(output, shape, self.fill),
            content,
            *moved_objects(element, self.resize),
        )


def moved_objects(element: Element, resize: Resize) -> tuple[np.ndarray, np.ndarray]:
    """Takes the objects of an element along to its output.

    Args:
        element: with an image, of which only the size is used.
        resize: what the network sees of images.

    Returns:
        All boxes, float32 [n, 4] in pixels of the output and clipped to it, and the indices of those
        that are still objects there.
    """
    boxes, patch = element.boxes, element.patch
    _, content, placement = _placement(element, resize)
    if not len(boxes) or not placement.source.pixels:
        return boxes, np.zeros(0, np.intp)
    moved = geometry.move_boxes(boxes, placement, content, turn=element.turn)
    keep = (moved[:, :2] < moved[:, 2:]).all(axis=1)
    if patch != WHOLE:
        keep &= geometry.centres_inside(geometry.to_fractions(boxes, _canvas(element)), patch)
    return moved, np.flatnonzero(keep)


def _canvas(element: Element) -> Canvas:
    assert element.image is not None
    height, width = element.image.shape[:2]
    return element.canvas or Canvas(width, height)


def _placement(element: Element, resize: Resize) -> tuple[Size, Size, geometry.Placement]:
    """The network input, the part of it that is not padding, and where the image lies in that."""
    assert element.image is not None
    height, width = element.image.shape[:2]
    canvas = _canvas(element)
    shape = element.shape or resize.shapes[0]
    content = resize.content(*geometry.patch_size(canvas, element.patch), shape, element.short)
    return shape, content, geometry.place(canvas, width, height, content, element.patch)


def _pad(rows: np.ndarray, keep: np.ndarray, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    padded = np.zeros(shape, dtype)
    padded[: len(keep)] = rows[keep]
    return padded
