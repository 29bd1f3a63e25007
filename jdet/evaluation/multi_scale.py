"""Runs the passes of multi-scale testing over batches and merges what they find in each image.

Every input size is one compiled program, which also serves the mirrored images. What a pass finds
is moved to the original image's pixels as always (``detect.moved``), filtered by size there, and merged on
the device. Masks follow their boxes: where those of a cluster become one, by box voting, its masks are
resampled in that box and averaged, with the same weights; where the best box is taken, its mask is.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jdet.data.segmentation import Rle
from jdet.data.transforms.multi_scale import View
from jdet.data.transforms.resize import Resize
from jdet.data.transforms.warp import Warp
from jdet.evaluation import detect
from jdet.evaluation.detect import Moved
from jdet.evaluation.masks import average, paste_masks
from jdet.evaluation.tta import Pass, Settings
from jdet.ops import voting
from jdet.parallel import device_memory
from jdet.types import Batch, ConfigError, Detections, ImageDetections

_merge = jax.jit(
    voting.merge_traced,
    static_argnames=("kind", "keep", "iou_threshold", "pixel_offset", "score_threshold"),
)


class _Run(NamedTuple):
    """One call of the network: a view of the images, as they are or mirrored, and the pass it is of."""

    view: int
    mirrored: bool
    of: Pass


class MultiScale:
    """A detector applied to every image at several sizes, mirrored and not.

    Attributes:
        views: the network inputs, for ``pipeline.eval_batches``.
        passes_per_image: how often the network sees an image, mirrored ones counted.
    """

    def __init__(self, detect: detect.DetectFn, options: Settings, resize: Resize):
        """Plans the passes; compiles nothing yet.

        Args:
            detect: of a detector that takes any input size (``any_input_size``).
            options: from ``settings``.
            resize: what the network sees of images at one size.

        Raises:
            ConfigError: the detector takes its own input size only, or the resize cannot show images as
                a pass wants them.
        """
        if not getattr(detect.detector, "any_input_size", False):
            raise ConfigError(
                f"config.eval.tta: {type(detect.detector).__name__} takes inputs of "
                "config.input_size only; set config.eval.tta.preset='none'"
            )
        self._detect, self._options = detect, options
        self._alone = detect.processes == 1
        views: dict[View, Pass] = {}  # and the pass that brought each, for messages
        planned: list[tuple[View, bool, Pass]] = []
        for one in options.passes:
            for view in _views(one, resize):
                views.setdefault(view, one)
                planned += [(view, mirrored, one) for mirrored in (False, True)[: 1 + one.flip]]
        self.views = tuple(views)
        self._passes = tuple(views.values())
        self._runs = [_Run(self.views.index(view), flip, one) for view, flip, one in planned]
        # Of two oriented views an image is in one.
        self.passes_per_image = sum(view.shows(100, 200) for view, _, _ in planned)
        self._merge = functools.partial(
            _merge,
            kind=options.merge,
            iou_threshold=options.iou_threshold,
            pixel_offset=options.pixel_offset,
            score_threshold=options.score_threshold,
        )

    def check(self, variables: Any, batch_size: int) -> None:
        """Traces every input size, in fractions of a second each.

        Args:
            variables: of the detector, or their shapes and types.
            batch_size: B.

        Raises:
            ConfigError: an input leaves the detector no level; the message names the scale.
        """
        for index, view in enumerate(self.views):
            try:
                self._detect.trace(variables, (batch_size, *view.shape))
            except ConfigError as error:
                raise ConfigError(f"config.eval.tta: {self._name(index)}: {error}") from error

    def prepare(self, variables: Any, batch_size: int, free: int | None = None) -> None:
        """Compiles every input size, the largest first, and compares the memory it needs with what is free.

        Args:
            variables: of the detector, on device.
            batch_size: B.
            free: bytes free on each device; None: asked of the device, or of the host for a CPU.

        Raises:
            ConfigError: an input needs more memory than there is, or leaves the detector no level.
        """
        self.check(variables, batch_size)
        for index in sorted(range(len(self.views)), key=lambda i: -np.prod(self.views[i].shape)):
            available = device_memory.free_memory(self._detect.devices) if free is None else free
            with self._explained(index, batch_size):
                program = self._detect.compile(variables, (batch_size, *self.views[index].shape))
            needed = device_memory.needed_memory(program, variables)
            if needed is not None and available is not None and needed > available:
                raise ConfigError(
                    f"{self._too_large(index, batch_size)}: it takes {needed / 2**30:.2f} GiB "
                    f"beside the weights, and {available / 2**30:.2f} GiB are free; {_REMEDY}"
                )

    def detect(
        self, variables: Any, images: Sequence[np.ndarray], image_sizes: Sequence[np.ndarray]
    ) -> list[tuple[_Run, Detections]]:
        """Starts all passes over a batch; returns before the device is done.

        Args:
            variables: of the detector.
            images: [B, H, W, C] for every view.
            image_sizes: int32 [B, 2] for every view, zeros where it does not show the image.

        Raises:
            ConfigError: memory ran out; the message names the scale.
        """
        started = []
        for run in self._runs:
            pixels, sizes = images[run.view], image_sizes[run.view]
            # No image here has that orientation; but one of another process may.
            if self._alone and not np.any(sizes):
                continue
            if run.mirrored:
                pixels = mirror_images(pixels, sizes)
            with self._explained(run.view, len(pixels)):
                started.append((run, self._detect(variables, pixels, sizes)))
        return started

    def to_images(
        self, started: Sequence[tuple[_Run, Detections]], batch: Batch, ids: Sequence[str]
    ) -> list[ImageDetections]:
        """Waits for a batch, and merges what was found in each image.

        Args:
            started: from ``detect``.
            batch: the batch, with a tuple of images and sizes.
            ids: as in ``detect.to_images``.

        Returns:
            One record per row with ``batch.real``, in pixels of the original image, best first.

        Raises:
            ConfigError: memory ran out; the message names the scale.
        """
        rows, count = np.flatnonzero(batch.real), len(batch.real)
        parts: list[list[Moved]] = [[] for _ in rows]
        depth = 1
        for run, found in started:
            sizes = np.asarray(batch.image_sizes[run.view])
            with self._explained(run.view, count):
                found = jax.tree.map(detect.local_rows, found)
            depth = found.scores.shape[1]
            if run.mirrored:
                found = mirror_detections(found, sizes)
            images = detect.moved(found, batch._replace(image_sizes=sizes), ids)
            for row, image, mine in zip(rows, images, parts, strict=True):
                if sizes[row].any():
                    mine.append(_of_size(image, run.of))

        capacity = self.passes_per_image * depth
        boxes = np.zeros((count, capacity, 4), np.float32)
        scores = np.zeros((count, capacity), np.float32)
        labels = np.zeros((count, capacity), np.int32)
        for row, mine in zip(rows, parts, strict=True):
            n = sum(len(part.image.scores) for part in mine)
            if n:
                for padded, field in ((boxes, "boxes"), (scores, "scores"), (labels, "labels")):
                    padded[row, :n] = np.concatenate([getattr(part.image, field) for part in mine])
        merged = self._merge(
            boxes, scores, labels, scores > 0, keep=self._options.max_detections or depth
        )
        merged = jax.tree.map(np.asarray, merged)
        found, images = merged.detections, []
        for row, mine in zip(rows.tolist(), parts, strict=True):
            valid = found.valid[row]
            image = ImageDetections(
                id=ids[row],
                boxes=found.boxes[row][valid],
                scores=found.scores[row][valid],
                labels=found.labels[row][valid],
            )
            if mine and mine[0].masks is not None:
                masks = self._masks(mine, image, merged.source[row][valid], merged.owner[row])
                image = image._replace(masks=masks)
            images.append(image)
        return images

    def _masks(
        self,
        parts: Sequence[Moved],
        image: ImageDetections,
        source: np.ndarray,
        owner: np.ndarray,
    ) -> tuple[Rle, ...]:
        """The masks of merged boxes: the mean of those of a cluster, weighted by scores as the boxes are.

        Where boxes are only selected, each has its own.
        """
        scores, frames, given = (
            np.concatenate(values)
            for values in zip(*((p.image.scores, p.frames, p.masks) for p in parts))
        )
        masks = np.zeros((len(source), *given.shape[1:]))
        boxes = image.boxes.copy()
        for i, best in enumerate(source.tolist()):
            members = np.flatnonzero(owner[: len(scores)] == best)
            if len(members) < 2 or self._options.merge == "nms":
                masks[i], boxes[i] = given[best], frames[best]
            else:
                masks[i] = average(given[members], frames[members], scores[members], boxes[i])
        return paste_masks(masks, boxes, *parts[0].size)

    def _name(self, index: int) -> str:
        one, (height, width) = self._passes[index], self.views[index].shape
        scale = f"{one.long:g}" if one.long == one.short else f"{one.long:g} × {one.short:g}"
        return f"scale {scale} ({height}×{width} pixels)"

    def _too_large(self, index: int, batch_size: int) -> str:
        return (
            f"config.eval.tta: {self._name(index)} with {batch_size} images at a time does not fit"
        )

    @contextlib.contextmanager
    def _explained(self, index: int, batch_size: int) -> Iterator[None]:
        """Raises an error that explains that memory ran out."""
        try:
            yield
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            text = str(error)
            lacking = "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()
            if not lacking and not isinstance(error, MemoryError):
                raise
            raise ConfigError(
                f"{self._too_large(index, batch_size)}: memory ran out; {_REMEDY}"
            ) from error


def _views(one: Pass, resize: Resize) -> list[View]:
    """The network inputs of a pass."""
    if one.long == one.short:
        scaled = resize.scaled(one.long)
        return [View(shape, scaled) for shape in scaled.shapes]
    if type(resize) is not Warp:  # a class derived from it may show images otherwise
        raise ConfigError(
            f"config.eval.tta: the pass of {one.long:g} × {one.short:g} changes proportions, which only "
            f"config.resize.name='warp' does, and this is {type(resize).__name__}; use the preset "
            "'flip', or 'custom' with passes whose factors of long and short side are equal"
        )
    long, short = (max(1, round(factor * resize.input_size)) for factor in (one.long, one.short))
    return [View(shape) for shape in dict.fromkeys(((short, long), (long, short)))]


_REMEDY = (
    "lower the batch size (config.eval.batch_size, --batch_size of jdet.predict), or leave the scale "
    "out with config.eval.tta.preset='custom' and passes of your own"
)


def mirror_images(images: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Images [B, H, W, C] with their content, ``sizes`` [B, 2] (height, width), left to right."""
    images, mirrored = np.asarray(images), np.array(images)
    for row, width in enumerate(np.asarray(sizes)[:, 1]):
        mirrored[row, :, :width] = images[row, :, :width][:, ::-1]
    return mirrored


def mirror_detections(found: Detections, sizes: np.ndarray) -> Detections:
    """Moves detections of images whose content has ``sizes`` [B, 2] to the mirrored images."""
    x1, y1, x2, y2 = np.moveaxis(np.asarray(found.boxes), -1, 0)
    width = np.asarray(sizes)[:, 1:].astype(np.float32)
    boxes = np.stack([width - x2, y1, width - x1, y2], axis=-1)
    masks = None if found.masks is None else np.asarray(found.masks)[..., ::-1]
    return found._replace(boxes=boxes, masks=masks)


def _of_size(found: Moved, one: Pass) -> Moved:
    """Detections whose sides are within the limits of a pass."""
    boxes = found.image.boxes
    sides = boxes[:, 2:] - boxes[:, :2]
    keep = np.ones(len(sides), bool)
    if one.above:
        keep &= sides.max(axis=1, initial=0) > one.above
    if one.below:
        keep &= sides.min(axis=1, initial=np.inf) < one.below
    return found.select(keep)
