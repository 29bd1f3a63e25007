"""Runs a detector over a finite stream of pictures and hands what it finds to evaluators.

This is the one place where detections leave the network's pixels for those of the original picture
(``to_pictures``). The device works on one batch while the host scores the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdet.data.pipeline import BatchStream
from jdet.evaluation.coco_ap import CocoEvaluator
from jdet.evaluation.voc_ap import VocEvaluator
from jdet.types import Batch, ConfigError, Detections, Example, PictureDetections, Source

_EVALUATORS = {"voc": VocEvaluator, "coco": CocoEvaluator}


class Evaluator(Protocol):
    """Takes pictures one by one, answers with numbers under slash names."""

    def add(self, detections: PictureDetections, truth: Example) -> None: ...  # noqa: D102

    def result(self) -> dict[str, float]: ...  # noqa: D102


def make_evaluators(names: Sequence[str], class_names: Sequence[str]) -> list[Evaluator]:
    """The evaluators that ``config.eval.metrics`` asks for.

    Args:
        names: of ``"voc"`` and ``"coco"``.
        class_names: K names, in label order.

    Returns:
        One empty evaluator per name.

    Raises:
        ConfigError: a name that does not exist.
    """
    for name in names:
        if name not in _EVALUATORS:
            raise ConfigError(f"eval.metrics: no metric {name!r}; there are {sorted(_EVALUATORS)}")
    return [_EVALUATORS[name](class_names) for name in names]


def metric_names(names: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """What the evaluators of ``make_evaluators`` call their numbers, known before any picture."""
    found: list[str] = []
    for evaluator in make_evaluators(names, class_names):
        found += evaluator.result()
    return found


class KeepPictures:
    """Keeps evenly spread pictures of the stream, for drawing; adds no numbers.

    Attributes:
        pairs: ``(detections, truth)`` of the pictures kept, in stream order.
    """

    def __init__(self, count: int, total: int):
        """Starts empty.

        Args:
            count: how many pictures to keep (fewer if there are fewer).
            total: how many pictures will come.
        """
        count = min(count, total)
        self._wanted = {i * total // count for i in range(count)}
        self._seen = 0
        self.pairs: list[tuple[PictureDetections, Example]] = []

    def add(self, detections: PictureDetections, truth: Example) -> None:
        """Counts one picture and keeps it if its turn has come."""
        if self._seen in self._wanted:
            self.pairs.append((detections, truth))
        self._seen += 1

    def result(self) -> dict[str, float]:
        """Nothing: pictures are not numbers."""
        return {}


class DetectFn:
    """A detector's ``detect``, compiled once per shape, on one device or with the batch split over a mesh.

    ``fn(variables, images [B, H, W, 3] uint8, image_sizes [B, 2] int32) -> Detections``; with several
    processes, each passes the same whole batch.

    Attributes:
        detector: the module.
        devices: on which a batch is spread.
    """

    def __init__(self, detector: Any, mesh: Mesh | None = None):
        """Compiles nothing yet.

        Args:
            detector: a detector module, contract ``detect(images, image_sizes) -> Detections``.
            mesh: axes ``("group", "member")``; the batch is split over both, the variables and the
                result are whole on every device, so that each process of several sees all detections.
        """
        self.detector = detector
        self.devices = [jax.devices()[0]] if mesh is None else list(mesh.devices.flat)
        self._split = None
        self._compiled: dict[tuple[int, ...], Callable[..., Detections]] = {}

        def detect(variables, images, image_sizes):
            return detector.apply(variables, images, image_sizes, method="detect")

        if mesh is None:
            self._jitted = jax.jit(detect)
            return
        batch, whole = PartitionSpec(("group", "member")), PartitionSpec()
        # Nothing is exchanged between pictures, so there is no replication for JAX to check.
        sharded = jax.shard_map(
            detect, mesh=mesh, in_specs=(whole, batch, batch), out_specs=batch, check_vma=False
        )
        self._jitted = jax.jit(sharded, out_shardings=NamedSharding(mesh, whole))
        self._split = NamedSharding(mesh, batch)

    def __call__(self, variables: Any, images: Any, image_sizes: Any) -> Detections:
        """Starts the detection; returns before the device is done.

        Raises:
            ConfigError: B is not a multiple of the number of devices.
        """
        self._check(len(images))
        program = self._compiled.get(np.shape(images), self._jitted)
        return program(variables, self._place(images), self._place(image_sizes))

    def trace(self, variables: Any, shape: tuple[int, int, int]) -> Detections:
        """Shapes and types of the result for a shape (B, H, W), without compiling.

        Raises:
            ConfigError: as of a call, or the detector cannot take such an input.
        """
        return jax.eval_shape(self._jitted, variables, *self._arguments(shape))

    def compile(self, variables: Any, shape: tuple[int, int, int]) -> Any:
        """Compiles for a shape (B, H, W) ahead of its first call, which then uses the result.

        Args:
            variables: as in calls, or their shapes and types.
            shape: pictures, height and width.

        Returns:
            The program, of type ``jax.stages.Compiled``.

        Raises:
            ConfigError: as of ``trace``.
        """
        images, sizes = self._arguments(shape)
        if images.shape not in self._compiled:
            self._compiled[images.shape] = self._jitted.lower(variables, images, sizes).compile()
        return self._compiled[images.shape]

    def _arguments(self, shape: tuple[int, int, int]) -> tuple[Any, Any]:
        self._check(shape[0])
        kinds = ((*shape, 3), jnp.uint8), ((shape[0], 2), jnp.int32)
        images, sizes = (jax.ShapeDtypeStruct(*kind, sharding=self._split) for kind in kinds)
        return images, sizes

    def _check(self, count: int) -> None:
        if count % len(self.devices):
            raise ConfigError(
                f"eval.batch_size = {count} does not divide over {len(self.devices)} devices; "
                f"take a multiple of {len(self.devices)}, or set parallel.devices"
            )

    def _place(self, array: Any) -> Any:
        if self._split is None:
            return array
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, self._split, lambda rows: array[rows])


def to_pictures(
    detections: Detections, batch: Batch, ids: Sequence[str]
) -> list[PictureDetections]:
    """Moves detections from the network's pixels to those of the original pictures.

    Boxes are scaled by original size / content size and clipped to the picture. Rows that are not
    ``valid``, or not finite, are dropped; nothing else is, whatever its score or size.

    Args:
        detections: arrays [B, D, …], on host or device.
        batch: the batch they were found in.
        ids: B names; those of padding rows do not matter.

    Returns:
        One record per row with ``batch.real``, in order.
    """
    boxes, scores, labels, valid = (np.asarray(x) for x in detections)
    content, original = np.asarray(batch.image_sizes), np.asarray(batch.original_sizes)
    scale = (original / np.maximum(content, 1)).astype(np.float32)[:, None, ::-1]  # [B, 1, xy]
    limit = original.astype(np.float32)[:, None, ::-1]
    with np.errstate(invalid="ignore"):  # rows that are not finite are dropped below
        boxes = np.clip(boxes * np.tile(scale, 2), 0, np.tile(limit, 2))
    keep = valid & np.isfinite(boxes).all(-1) & np.isfinite(scores)
    return [
        PictureDetections(ids[i], boxes[i][keep[i]], scores[i][keep[i]], labels[i][keep[i]])
        for i in np.flatnonzero(batch.real).tolist()
    ]


def evaluate(
    detect_fn: Callable[[Any, Any, Any], Any],
    variables: Any,
    stream: Iterable[Batch],
    source: Source,
    evaluators: Sequence[Evaluator],
    *,
    expected: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    to_pictures: Callable[[Any, Batch, Sequence[str]], list[PictureDetections]] = to_pictures,
) -> dict[str, float]:
    """Detects in every picture of a stream and evaluates against the source's own objects.

    The truth is ``source[index]``, not the batch's padded copy, which may hold fewer objects.

    Args:
        detect_fn: a ``DetectFn``, or ``MultiScale.detect`` for a stream of several sizes.
        variables: the detector's variables, on device.
        stream: batches, each picture once; the last may be padded (``real`` False).
        source: what the stream reads; its first ``expected`` pictures are what must come.
        evaluators: each gets every picture; their results are merged.
        expected: number of pictures, ``len(source)`` if None.
        on_progress: called with (pictures done, pictures expected) after every batch.
        to_pictures: what makes picture detections of ``detect_fn``'s result; ``MultiScale``'s own.

    Returns:
        All evaluators' numbers.

    Raises:
        ValueError: the detector has labels for which the source has no class.
        RuntimeError: a picture came twice or not at all, so that the numbers would be wrong. Only
            what the stream itself skipped as unreadable may be missing; a warning counts it.
    """
    expected = len(source) if expected is None else expected
    seen = np.zeros(expected, int)

    def finish(detections: Any, batch: Batch) -> None:
        rows = np.flatnonzero(batch.real)
        index = np.asarray(batch.index)
        if np.any(index[rows] >= expected) or np.any(index[rows] < 0):
            raise RuntimeError(
                f"the evaluation stream holds picture {index[rows].max()} of {expected} expected"
            )
        np.add.at(seen, index[rows], 1)
        truths = {row: source[int(index[row])] for row in rows}
        ids = [truths[row].id if row in truths else "" for row in range(len(index))]
        for picture, row in zip(to_pictures(detections, batch, ids), rows, strict=True):
            if len(picture.labels) and picture.labels.max() >= len(source.class_names):
                raise ValueError(
                    f"the detector found label {picture.labels.max()}, but the evaluation set has "
                    f"{len(source.class_names)} classes; it was trained on other classes"
                )
            for evaluator in evaluators:
                evaluator.add(picture, truths[row])
        if on_progress is not None:
            on_progress(int(seen.sum()), expected)

    pending: tuple[Any, Batch] | None = None
    for batch in stream:
        # Dispatch returns at once; the batch before is scored while the device works on this one.
        found = detect_fn(variables, batch.images, batch.image_sizes)
        if pending is not None:
            finish(*pending)
        pending = found, batch
    if pending is not None:
        finish(*pending)

    missing, repeated = np.flatnonzero(seen == 0), np.flatnonzero(seen > 1)
    unreadable = len(stream.report().skipped) if isinstance(stream, BatchStream) else 0
    if len(repeated) or len(missing) != unreadable:
        raise RuntimeError(
            f"of {expected} pictures to evaluate, {len(missing)} were missing (index "
            f"{missing[:5].tolist()} …; {unreadable} could not be read) and {len(repeated)} came "
            f"more than once (index {repeated[:5].tolist()} …)"
        )
    if unreadable:
        logging.warning("%d of %d pictures could not be read: not evaluated", unreadable, expected)
    metrics: dict[str, float] = {}
    for evaluator in evaluators:
        metrics.update(evaluator.result())
    return metrics
