"""Records that travel between the parts of jdet, and the glossary of shape letters.

Shape letters, used in every docstring and trailing comment of the project:

    B batch            H W  image height and width      h w  feature map height and width
    C channels         K    classes                       A    anchors (default boxes) or points
    N padded objects   R    regions                       D    detections
    L pyramid levels

Boxes inside jdet are ``x1, y1, x2, y2``: float32, continuous pixels of the network input (width is
``x2 - x1``). An ``Example`` is the one record in pixels of the original image. Labels are
``0 … K-1``; background exists only inside a loss. Padding is said by ``valid``, difficult or crowd
objects by ``ignore``; neither is ever encoded in a label or a coordinate.

Records are built by keyword and read by name, never unpacked by position: they grow. An optional field
that a data set or detector does not have is None, which every stage passes on (None is an empty pytree).
Everything here is plain Python, so that input workers need not import JAX. NamedTuples are pytrees.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


class ConfigError(ValueError):
    """A config is invalid or names something that does not exist; the message gives the remedy."""


class DataError(ValueError):
    """A file of a data set is missing, unreadable or contradicts itself; the message names it."""


def require(condition: bool, key: str, value: object, expected: str) -> None:
    """Checks one setting.

    Args:
        condition: the setting is valid.
        key: what it is called, such as "config.augment.flip".
        value: what it is.
        expected: what it must be, such as "in 0 … 1".

    Raises:
        ConfigError: ``condition`` is False; the message has all three.
    """
    if not condition:
        raise ConfigError(f"{key}={value!r}; it must be {expected}")


def nearest(word: str, known: Iterable[str]) -> str:
    """``", did you mean 'cat'?"`` where one of ``known`` resembles ``word``, in any case, else ``""``."""
    by_lower = {name.lower(): name for name in reversed(list(known))}
    close = difflib.get_close_matches(word.lower(), by_lower, 1, 0.5)
    return f", did you mean {by_lower[close[0]]!r}?" if close else ""


class ImageKind(NamedTuple):
    """What the images of a data set are, all alike: arrays [H, W, C] of one type, values as stored.

    Attributes:
        channels: C.
        colour: "rgb" (three channels, for which hue and saturation mean something), "gray" (one) or
            "bands" (any number of measurements).
        dtype: "uint8", "uint16" or "float32".
        value_range: lowest and highest value that means something: 0 … 255 of uint8, 0 … 2^n - 1 of
            uint16 where n bits are used, those that were measured of float32.
    """

    channels: int = 3
    colour: str = "rgb"
    dtype: str = "uint8"
    value_range: tuple[float, float] = (0.0, 255.0)

    @classmethod
    def of(cls, source: Any) -> ImageKind:
        """The kind of a source's images; 8-bit RGB where it does not say (``image_kind``)."""
        return getattr(source, "image_kind", cls())

    def __str__(self) -> str:
        names = {"rgb": "RGB", "gray": "grey"}
        what = names.get(self.colour, f"{self.channels} bands")
        low, high = self.value_range
        return f"{what}, {self.dtype}, values {low:.6g} … {high:.6g}"


EIGHT_BIT_RGB = ImageKind()


class OfficialObjects(NamedTuple):
    """The objects of an image as its label file has them: the ground truth of official numbers.

    Nothing is clipped, dropped or rounded: boxes may leave their image, be empty or inverted.

    Attributes:
        xywh: float64 [m, 4], x1 y1 width height in continuous pixels of the original image.
        labels: int32 [m], 0 … K-1.
        ignore: bool [m], as in ``Example``.
        areas: float64 [m], square pixels as labelled; width times height where the file does not say.
        masks: one COCO segmentation per object (None where it has none), or None without masks.
        rank: place of the image in the order in which the official evaluation takes the images of the
            set: by COCO image id, or as the split lists them.
    """

    xywh: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    areas: np.ndarray
    masks: tuple[Any, ...] | None = None
    rank: int = 0


class Example(NamedTuple):
    """One image with its objects, as a data source yields it.

    What training uses is checked and cleaned; ``official`` is what the label file says.

    Attributes:
        id: unique name of the image within its source (VOC stem, COCO image id as text).
        image: path of the image, or paths of several files whose channels make it, its encoded bytes, or
            its values [H, W, C].
        boxes: float32 [n, 4], x1 y1 x2 y2 in continuous pixels of the original image.
        labels: int32 [n], 0 … K-1.
        ignore: bool [n], objects that evaluation neither rewards nor penalises (VOC difficult, COCO crowd).
        areas: float32 [n], object areas in square pixels (COCO's ``area``; box area elsewhere).
        masks: one COCO segmentation (polygons or RLE) per object, None for an object without a usable
            one; or None where there are none at all.
        official: the objects as labelled; None where the source has no label files: then the fields above
            are the ground truth of every number.
    """

    id: str
    image: str | tuple[str, ...] | bytes | np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    areas: np.ndarray
    masks: tuple[Any, ...] | None = None
    official: OfficialObjects | None = None

    def without_masks(self) -> Example:
        """The same without masks, which are by far the largest part of a record."""
        official = self.official and self.official._replace(masks=None)
        return self._replace(masks=None, official=official)


@runtime_checkable
class Source(Protocol):
    """Random access to examples; picklable, holds no open handles.

    A source may offer more, which is used where it is there: ``describe()``, one line for the log;
    ``image_kind``, what its images are (``ImageKind``), without which they are 8-bit RGB;
    ``has_masks``, whether objects have ``Example.masks``;
    ``defects``, a list of ``jdet.data.sources.annotations.Defect``; ``image_size(i)``, height and width
    without decoding (or None); ``ids``, the names of all images; ``image_paths``, their files;
    ``repeat_factors``, how often each image comes in an epoch of training (``jdet.data.balance``);
    ``image_ids`` and ``category_ids``, the data set's own id (a number or text) of each image and of each
    label, as its COCO files have them.
    """

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


class Batch(NamedTuple):
    """Images and padded objects as they enter the jitted step.

    The input pipeline makes one image's row of it as the same record without the leading axis.

    Attributes:
        images: [B, H, W, C], uint8, uint16 or float32, values as stored (``ImageKind``); for multi-scale
            testing a tuple of such, one per input size.
        boxes: float32 [B, N, 4], x1 y1 x2 y2 in pixels of the network input; zeros where padded.
        labels: int32 [B, N]; zeros where padded.
        valid: bool [B, N], the row holds an object.
        ignore: bool [B, N], difficult or crowd.
        image_sizes: int32 [B, 2], height and width of the image's content inside [H, W]; a tuple
            where ``images`` is one, with zeros where a size does not show the image.
        original_sizes: int32 [B, 2], height and width of the original image.
        index: int32 [B], position of the image in its source.
        real: bool [B], False for rows that only pad an evaluation batch.
        masks: uint8 [B, N, M, M] of 0 and 1, instance masks, each in the frame of its box
            (``jdet.data.transforms.instance_masks``); all 0 where padded, and for an object whose mask is
            not known, from which mask losses learn nothing. None: not asked for.
    """

    images: Any
    boxes: Any
    labels: Any
    valid: Any
    ignore: Any
    image_sizes: Any
    original_sizes: Any
    index: Any
    real: Any
    masks: Any = None

    @classmethod
    def of_images(
        cls,
        images: Any,
        image_sizes: Any = None,
        *,
        original_sizes: Any = None,
        real: Any = None,
        max_boxes: int = 0,
        mask_size: int = 0,
    ) -> Batch:
        """Images without objects.

        Args:
            images: as in ``images``; None where only what belongs to the images is asked for.
            image_sizes: as in ``image_sizes``; None: the images fill their input.
            original_sizes: int32 [B, 2]; None: ``image_sizes``.
            real: bool [B]; None: all are.
            max_boxes: N.
            mask_size: M; 0: no masks.
        """
        if image_sizes is None:
            image_sizes = np.tile(np.array(images.shape[1:3], np.int32), (images.shape[0], 1))
        original_sizes = image_sizes if original_sizes is None else original_sizes
        count = len(original_sizes)
        return cls(
            images=images,
            boxes=np.zeros((count, max_boxes, 4), np.float32),
            labels=np.zeros((count, max_boxes), np.int32),
            valid=np.zeros((count, max_boxes), bool),
            ignore=np.zeros((count, max_boxes), bool),
            image_sizes=image_sizes,
            original_sizes=original_sizes,
            index=np.arange(count, dtype=np.int32),
            real=np.ones(count, bool) if real is None else real,
            masks=np.zeros((count, max_boxes, mask_size, mask_size), np.uint8)
            if mask_size
            else None,
        )


class Detections(NamedTuple):
    """Detections of fixed size, best first within an image; of one image without the axis B.

    Attributes:
        boxes: float32 [B, D, 4], x1 y1 x2 y2 in pixels of the network input.
        scores: float32 [B, D] in 0 … 1; zeros where not valid.
        labels: int32 [B, D], 0 … K-1; zeros where not valid.
        valid: bool [B, D].
        masks: float32 [B, D, m, m], probabilities in the frame of each box; None: the detector has none.
    """

    boxes: Any
    scores: Any
    labels: Any
    valid: Any
    masks: Any = None


class ImageDetections(NamedTuple):
    """Detections of one image, on the host: what evaluators, drawings and JSON files take.

    Attributes:
        id: as in ``Example``.
        boxes: float32 [d, 4], x1 y1 x2 y2 in continuous pixels of the original image, clipped to it.
        scores: float32 [d], best first.
        labels: int32 [d], 0 … K-1.
        masks: one COCO run-length encoding per detection, of the whole original image; None: no masks.
    """

    id: str
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: tuple[Any, ...] | None = None

    def select(self, rows: np.ndarray) -> ImageDetections:
        """Some of the detections, by index or by bool [d]."""
        masks = self.masks
        if masks is not None:
            masks = tuple(masks[i] for i in np.arange(len(masks))[rows])
        return self._replace(
            boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows], masks=masks
        )


class Evaluated(NamedTuple):
    """What an evaluation of a state found.

    Attributes:
        metrics: numbers by slash names, the main one first.
        images: drawn images by slash names, uint8 [H, W, 3] RGB.
        wait: returns once all files of the evaluation are written, which may still be going on; raises what
            went wrong.
    """

    metrics: Mapping[str, float]
    images: Mapping[str, np.ndarray] = {}
    wait: Callable[[], None] = lambda: None


class Mean(NamedTuple):
    """A mean that is still a sum and a weight, so that it can be added up over devices and steps.

    Attributes:
        total: float32 scalar, the sum.
        weight: float32 scalar, what to divide by (at least 1 is enforced at the division).
    """

    total: Any
    weight: Any


class Moments(NamedTuple):
    """Statistics of one batch, as a batch norm measured them before it normalised.

    Attributes:
        mean: float32 [G, C], of every group whose statistics this device knows.
        var: float32 [G, C], biased.
        count: numbers per group and channel, over all devices that share the group; where images
            differ in size, the mean of this device's groups.
    """

    mean: Any
    var: Any
    count: Any


class ClassLayer(NamedTuple):
    """Parameters whose last axis runs over classes.

    That axis holds ``slots · (background + K) · width`` numbers in this order: for every slot the
    background, then the classes, with ``width`` numbers each. SSD has a slot per default box; a
    per-class box regression has width 4.

    Attributes:
        pattern: regular expression of the whole parameter paths, norms after the layer included.
        slots: outputs per location that each have all classes.
        background: entries before the first class, 0 or 1.
        width: numbers per class.
    """

    pattern: str
    slots: int = 1
    background: int = 0
    width: int = 1


class HeadLayout(NamedTuple):
    """What the outputs of a detector mean, so that another training can start from its weights.

    Attributes:
        classes: the layers with entries per class.
        boxes: regular expression of the paths of parameters that predict boxes.
        references: by name, what these boxes are relative to, such as sizes of default boxes; two
            detectors with equal references mean the same by the same output.
        outputs: regular expressions of the paths of parameters that predict neither classes nor boxes.
    """

    classes: tuple[ClassLayer, ...]
    boxes: str
    references: Mapping[str, Any]
    outputs: tuple[str, ...] = ()


class TrainState(NamedTuple):
    """Everything a run needs to go on.

    Attributes:
        step: int32 scalar, optimiser steps taken.
        params: trainable parameters.
        stats: running statistics of normalisation layers.
        opt_state: optax state.
        ema: exponential moving average of both, ``{"params", "stats"}``, or None.
        finite: bool scalar, False from the first step on whose loss or gradient was not finite:
            nothing moves after that, so the state is the last good one. Not in checkpoints.
    """

    step: Any
    params: Any
    stats: Any
    opt_state: Any
    ema: Any
    finite: Any = True
