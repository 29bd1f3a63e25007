"""Multi-scale testing: one image at several sizes and mirrored, its detections merged.

ScratchDet300+ names no details; the presets are those of RefineDet's test code, whose author is one
of ScratchDet's, with S = ``config.input_size``. Default boxes keep their steps and sizes in pixels,
so a larger input finds smaller objects and each pass is trusted with the sizes it is good at. Where
images keep their proportions (``config.resize``), a pass multiplies the sides that testing gives them.

Every input size is one compiled program, which also serves the mirrored images. What a pass finds
is moved to the original image's pixels as always (``detect.to_images``), filtered by size there,
and merged on the device.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jdet.data.transforms.multi_scale import View
from jdet.data.transforms.resize import Resize
from jdet.evaluation import detect
from jdet.ops import voting
from jdet.types import Batch, ConfigError, Detections, ImageDetections


class Pass(NamedTuple):
    """One way of looking at an image.

    Attributes:
        long: input pixels along the image's longer side, as a factor of ``input_size``; of images
            that keep their proportions, of their size in testing.
        short: along its shorter side. Equal factors are a square input, where images are warped.
        flip: look at the mirrored image as well.
        above: keep boxes whose longer side is above this, in pixels of the original image; 0: all.
        below: keep boxes whose shorter side is below this; 0: all.
    """

    long: float
    short: float
    flip: bool = True
    above: float = 0.0
    below: float = 0.0


_VOC = (
    Pass(1.0, 1.0),
    Pass(1.0, 0.6),
    Pass(0.6, 0.6, above=32),
    Pass(1.2, 1.2, below=160),
    Pass(1.4, 1.4, below=128),
    Pass(1.6, 1.6, below=96),
    Pass(1.8, 1.8, below=64),
    Pass(2.2, 2.2, below=32),
)

PRESETS: dict[str, tuple[tuple[Pass, ...], str]] = {
    "flip": ((Pass(1.0, 1.0),), "voting"),
    "voc": (_VOC, "voting"),
    "coco": ((*_VOC[:-1], Pass(2.0, 2.0, below=48), _VOC[-1]), "soft_voting"),
}
"""Passes and merging by name; "voc" and "coco" as in RefineDet's multi-scale test."""


class Settings(NamedTuple):
    """``config.eval.tta``, checked and with its preset filled in.

    Attributes:
        passes: at least one.
        merge: one of ``voting.KINDS``.
        iou_threshold: overlap from which boxes of a class are one.
        pixel_offset: added to widths and heights for that overlap.
        score_threshold: of soft voting.
        max_detections: of an image after merging; 0: as many as the detector's.
    """

    passes: tuple[Pass, ...]
    merge: str
    iou_threshold: float
    pixel_offset: float
    score_threshold: float
    max_detections: int


def settings(group: Mapping[str, Any]) -> Settings | None:
    """What ``config.eval.tta`` asks for; None where it is off.

    Raises:
        ConfigError: a preset that does not exist, or a pass that cannot be.
    """
    preset, given = group["preset"], group["passes"]
    if preset != "custom" and given:
        raise ConfigError(
            f"config.eval.tta.passes is given, but config.eval.tta.preset={preset!r} has its own; "
            "set the preset to 'custom', or leave the passes out"
        )
    if preset == "none":
        return None
    if preset == "custom":
        if not given:
            raise ConfigError(
                "config.eval.tta.preset='custom' needs config.eval.tta.passes, such as "
                "((1.0, 1.0, True, 0, 0),): long side, short side, flip, above, below"
            )
        passes, merge = tuple(_pass(i, values) for i, values in enumerate(given)), "voting"
    elif preset in PRESETS:
        passes, merge = PRESETS[preset]
    else:
        raise ConfigError(
            f"config.eval.tta.preset={preset!r} does not exist; there are none, "
            f"{', '.join(PRESETS)}, custom"
        )
    merge = group["merge"] or merge
    if merge not in voting.KINDS:
        raise ConfigError(
            f"config.eval.tta.merge={merge!r} does not exist; there are {', '.join(voting.KINDS)}"
        )
    rest = ("iou_threshold", "pixel_offset", "score_threshold", "max_detections")
    return Settings(passes, merge, *(group[key] for key in rest))


def _pass(index: int, values: Any) -> Pass:
    key = f"config.eval.tta.passes[{index}]={values!r}"
    try:
        long, short, flip, above, below = values
        result = Pass(float(long), float(short), flip, float(above), float(below))
    except (TypeError, ValueError):
        raise ConfigError(
            f"{key} is not (long side, short side, flip, above, below), such as "
            "(1.2, 1.2, True, 0, 160)"
        ) from None
    if not isinstance(flip, bool):
        raise ConfigError(f"{key}: flip is True or False")
    if not (0 < result.short <= result.long <= 16):
        raise ConfigError(
            f"{key}: the factors of long and short side must lie in 0 < short <= long <= 16"
        )
    if not (0 <= result.above < float("inf") and 0 <= result.below < float("inf")):
        raise ConfigError(f"{key}: above and below are pixels, 0 for no limit")
    if result.below and result.above >= result.below:
        raise ConfigError(
            f"{key} keeps what is above {result.above:g} and below {result.below:g} pixels, which "
            "is turned round; above must be the smaller one, and 0 is no limit"
        )
    return result


class _Run(NamedTuple):
    """One call of the network: a view, as it is or mirrored, on behalf of a pass."""

    view: int
    mirrored: bool
    of: Pass


class MultiScale:
    """A detector looking at every image several times.

    Attributes:
        views: the network inputs, for ``pipeline.eval_batches``.
        looks: how often the network looks at an image.
    """

    def __init__(self, detect: detect.DetectFn, options: Settings, resize: Resize):
        """Plans the passes; compiles nothing yet.

        Args:
            detect: of a detector that takes any input size (it says so by ``any_input_size``).
            options: from ``settings``.
            resize: what the network sees of images at one size.

        Raises:
            ConfigError: the detector takes its own input size only, or a pass changes the proportions of
                images that keep them.
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
        self.looks = sum(view.shows(100, 200) for view, _, _ in planned)
        self._merge = jax.jit(
            functools.partial(
                voting.merge,
                kind=options.merge,
                iou_threshold=options.iou_threshold,
                pixel_offset=options.pixel_offset,
                score_threshold=options.score_threshold,
            ),
            static_argnames="keep",
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
        """Compiles every input size, the largest first, and holds its memory against what is free.

        Args:
            variables: of the detector, on device.
            batch_size: B.
            free: bytes free on each device; None: asked of the device, or of the host for a CPU.

        Raises:
            ConfigError: an input needs more memory than there is, or leaves the detector no level.
        """
        self.check(variables, batch_size)
        for index in sorted(range(len(self.views)), key=lambda i: -np.prod(self.views[i].shape)):
            available = free_memory(self._detect.devices) if free is None else free
            with self._explained(index, batch_size):
                program = self._detect.compile(variables, (batch_size, *self.views[index].shape))
            needed = _needed_memory(program, variables)
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
            images: uint8 [B, H, W, 3] for every view.
            image_sizes: int32 [B, 2] for every view, zeros where it does not show the image.

        Raises:
            ConfigError: memory ran out; the message names the scale.
        """
        started = []
        for run in self._runs:
            pixels, sizes = images[run.view], image_sizes[run.view]
            # Nobody of that orientation here; but other processes may have one.
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
        parts: list[list[ImageDetections]] = [[] for _ in rows]
        depth = 1
        for run, found in started:
            sizes = np.asarray(batch.image_sizes[run.view])
            with self._explained(run.view, count):
                found = Detections(*map(detect.local_rows, found))
            depth = found.scores.shape[1]
            if run.mirrored:
                found = mirror_detections(found, sizes)
            images = detect.to_images(found, batch._replace(image_sizes=sizes), ids)
            for row, image, mine in zip(rows, images, parts, strict=True):
                if sizes[row].any():
                    mine.append(_of_size(image, run.of))

        capacity = self.looks * depth
        boxes = np.zeros((count, capacity, 4), np.float32)
        scores = np.zeros((count, capacity), np.float32)
        labels = np.zeros((count, capacity), np.int32)
        for row, mine in zip(rows, parts, strict=True):
            n = sum(len(part.scores) for part in mine)
            if n:
                for padded, field in ((boxes, "boxes"), (scores, "scores"), (labels, "labels")):
                    padded[row, :n] = np.concatenate([getattr(part, field) for part in mine])
        merged = self._merge(
            boxes, scores, labels, scores > 0, keep=self._options.max_detections or depth
        )
        boxes, scores, labels, valid = map(np.asarray, merged)
        return [
            ImageDetections(
                ids[row], boxes[row][valid[row]], scores[row][valid[row]], labels[row][valid[row]]
            )
            for row in rows.tolist()
        ]

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
        """Says in words that memory ran out."""
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
    if resize.keeps_ratio:
        if one.long != one.short:
            raise ConfigError(
                f"config.eval.tta: the pass of {one.long:g} × {one.short:g} changes proportions, which "
                "config.resize.name='keep_ratio' keeps; use the preset 'flip', or 'custom' with passes "
                "whose factors of long and short side are equal"
            )
        scaled = resize.scaled(one.long)
        return [View(shape, scaled) for shape in scaled.shapes]
    side = resize.shapes[0][0]
    long, short = (max(1, round(factor * side)) for factor in (one.long, one.short))
    return [View(shape) for shape in dict.fromkeys(((short, long), (long, short)))]


_REMEDY = (
    "lower the batch size (config.eval.batch_size, --batch_size of jdet.predict), or leave the scale "
    "out with config.eval.tta.preset='custom' and passes of your own"
)


def mirror_images(images: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Images [B, H, W, 3] with their content, ``sizes`` [B, 2] (height, width), left to right."""
    images, mirrored = np.asarray(images), np.array(images)
    for row, width in enumerate(np.asarray(sizes)[:, 1]):
        mirrored[row, :, :width] = images[row, :, :width][:, ::-1]
    return mirrored


def mirror_detections(found: Detections, sizes: np.ndarray) -> Detections:
    """Takes boxes [B, D, 4] of images whose content has ``sizes`` [B, 2] to the mirrored ones."""
    x1, y1, x2, y2 = np.moveaxis(np.asarray(found.boxes), -1, 0)
    width = np.asarray(sizes)[:, 1:].astype(np.float32)
    return found._replace(boxes=np.stack([width - x2, y1, width - x1, y2], axis=-1))


def _of_size(found: ImageDetections, one: Pass) -> ImageDetections:
    """What a pass is trusted with."""
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    keep = np.ones(len(sides), bool)
    if one.above:
        keep &= sides.max(axis=1, initial=0) > one.above
    if one.below:
        keep &= sides.min(axis=1, initial=np.inf) < one.below
    return ImageDetections(found.id, *(field[keep] for field in found[1:]))


def _needed_memory(program: Any, variables: Any) -> int | None:
    """Bytes a compiled program takes on each device beside its variables; None where nobody knows."""
    analysis = program.memory_analysis()
    if analysis is None:
        return None
    held = sum(x.nbytes for x in jax.tree.leaves(variables))
    inputs = max(analysis.argument_size_in_bytes - held, 0)
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes + inputs


def free_memory(devices: Sequence[Any]) -> int | None:
    """Bytes free on each of these devices, as far as they are this process's; None if unknown."""
    local = [device for device in devices if device.process_index == jax.process_index()]
    stats = [device.memory_stats() for device in local]
    if stats and all(one and "bytes_limit" in one for one in stats):
        return min(one["bytes_limit"] - one.get("bytes_in_use", 0) for one in stats)
    if not local or local[0].platform != "cpu":
        return None
    try:  # the devices of a CPU share the host's memory
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return free[0] // len(local) if free else None
