"""Runs a detector on batches and moves its detections to the original images.

This is the one place where detections leave the network's pixels for those of the original image
(``to_images``). The device works on one batch while the host handles the one before (``one_ahead``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdet.evaluation.masks import paste_masks
from jdet.nn import fold
from jdet.types import Batch, ConfigError, Detections, ImageDetections, ImageKind

T = TypeVar("T")
R = TypeVar("R")


class DetectFn:
    """A detector's ``detect``, compiled once per shape, on one device or with the batch split over a mesh.

    ``fn(variables, images [B, H, W, C], image_sizes [B, 2] int32) -> Detections``. Of several
    processes each passes its own rows, [B / processes, …], and reads those of the result with
    ``local_rows``.

    Attributes:
        detector: the module.
        devices: on which a batch is spread.
        processes: over which it is.
    """

    def __init__(self, detector: Any, mesh: Mesh | None = None):
        """Compiles nothing yet.

        Args:
            detector: a detector module, contract ``detect(images, image_sizes) -> Detections``.
            mesh: axes ``("group", "member")``; the batch and the result are split over both, the
                variables are whole on every device.
        """
        self.detector = detector
        self.devices = [jax.devices()[0]] if mesh is None else list(mesh.devices.flat)
        self.processes = len({device.process_index for device in self.devices})
        self._split = None
        self._compiled: dict[tuple[int, ...], Callable[..., Detections]] = {}

        def detect(variables, images, image_sizes):
            return detector.apply(variables, images, image_sizes, method="detect")

        self._detect = detect
        self._fold: Callable[[Any], Any] | None = None

        if mesh is None:
            self._jitted = jax.jit(detect)
            return
        batch, whole = PartitionSpec(("group", "member")), PartitionSpec()
        # Nothing is exchanged between images, so there is no replication for JAX to check.
        self._jitted = jax.jit(
            jax.shard_map(
                detect, mesh=mesh, in_specs=(whole, batch, batch), out_specs=batch, check_vma=False
            )
        )
        self._split = NamedSharding(mesh, batch)

    def fold(self, variables: Any) -> Any:
        """Variables with which the detections are the same and the network has fewer passes to make.

        Batch norms are folded into the convolutions before them (``jdet.nn.fold``), once for all batches;
        other variables are returned as they are. Whoever compiles ahead does it with what is passed later.

        Args:
            variables: of the detector; they stay as they are.
        """
        if not variables.get("batch_stats"):
            return variables
        if self._fold is None:
            kind, side = ImageKind.of(self.detector), self.detector.input_size
            images = jax.ShapeDtypeStruct((1, side, side, kind.channels), kind.dtype)
            with fold.pairs() as pairs:
                jax.eval_shape(
                    self._detect, variables, images, jax.ShapeDtypeStruct((1, 2), jnp.int32)
                )
            self._fold = jax.jit(functools.partial(fold.fold, found=tuple(pairs)))
        return self._fold(variables)

    def __call__(self, variables: Any, images: Any, image_sizes: Any) -> Detections:
        """Starts the detection; returns before the device is done.

        Raises:
            ConfigError: B is not a multiple of the number of devices.
        """
        rows, *rest = np.shape(images)
        self._check(rows * self.processes)
        program = self._compiled.get((rows * self.processes, *rest), self._jitted)
        return program(variables, self._place(images), self._place(image_sizes))

    def trace(self, variables: Any, shape: tuple[int, int, int]) -> Detections:
        """Shapes and types of the result for a shape (B, H, W), without compiling.

        Raises:
            ConfigError: as in a call, or the detector cannot take such an input.
        """
        return jax.eval_shape(self._jitted, variables, *self._arguments(shape))

    def compile(self, variables: Any, shape: tuple[int, int, int]) -> Any:
        """Compiles for a shape (B, H, W) ahead of its first call, which then uses the result.

        Args:
            variables: as in calls, or their shapes and types.
            shape: images, height and width.

        Returns:
            The program, of type ``jax.stages.Compiled``.

        Raises:
            ConfigError: as in ``trace``.
        """
        images, sizes = self._arguments(shape)
        if images.shape not in self._compiled:
            self._compiled[images.shape] = self._jitted.lower(variables, images, sizes).compile()
        return self._compiled[images.shape]

    def _arguments(self, shape: tuple[int, int, int]) -> tuple[Any, Any]:
        self._check(shape[0])
        kind = ImageKind.of(self.detector)
        kinds = ((*shape, kind.channels), kind.dtype), ((shape[0], 2), jnp.int32)
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
        return jax.make_array_from_process_local_data(self._split, np.asarray(array))


def local_rows(array: Any) -> np.ndarray:
    """This process's rows of an array whose leading axis is split over the devices, in order."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return np.asarray(array)
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def one_ahead(batches: Iterable[T], start: Callable[[T], R]) -> Iterator[tuple[T, R]]:
    """Starts every batch before the one before it is handed out, to keep the device and the host busy.

    Args:
        batches: what to work on.
        start: begins the work on the device and returns at once.

    Yields:
        Every batch with what ``start`` returned for it, in order.
    """
    pending: tuple[T, R] | None = None
    for batch in batches:
        started = start(batch)
        if pending is not None:
            yield pending
        pending = batch, started
    if pending is not None:
        yield pending


class Moved(NamedTuple):
    """Detections of one image in its own pixels, of which masks are not pasted yet.

    Attributes:
        image: without masks.
        frames: float32 [d, 4], the boxes in which masks were predicted: not clipped to the image.
        masks: float32 [d, m, m], probabilities in the frames; None: the detector has none.
        size: height and width of the image.
    """

    image: ImageDetections
    frames: np.ndarray
    masks: np.ndarray | None
    size: tuple[int, int]

    def select(self, rows: np.ndarray) -> Moved:
        """Some of the detections, by index or by bool [d]."""
        masks = None if self.masks is None else self.masks[rows]
        image = self.image.select(rows)
        return self._replace(image=image, frames=self.frames[rows], masks=masks)

    def pasted(self) -> ImageDetections:
        """With masks as run-length encodings of the whole image."""
        if self.masks is None:
            return self.image
        return self.image._replace(masks=paste_masks(self.masks, self.frames, *self.size))


def to_images(detections: Detections, batch: Batch, ids: Sequence[str]) -> list[ImageDetections]:
    """Moves detections from the network's pixels to those of the original images.

    Boxes are scaled by original size / content size and clipped to the image. Rows that are not
    ``valid``, or not finite, are dropped; nothing else is, whatever its score or size. Masks are pasted
    into the scaled boxes before those are clipped (``masks.paste_masks``), for that is the frame in which
    they were predicted.

    Args:
        detections: arrays [B, D, …], on host or device; of several processes, this one's rows count.
        batch: the batch they were found in; this process's rows.
        ids: B names; those of padding rows do not matter.

    Returns:
        One record per row with ``batch.real``, in order.
    """
    return [found.pasted() for found in moved(detections, batch, ids)]


def moved(detections: Detections, batch: Batch, ids: Sequence[str]) -> list[Moved]:
    """As ``to_images``, with masks as the detector has them."""
    found = jax.tree.map(local_rows, detections)
    content, original = np.asarray(batch.image_sizes), np.asarray(batch.original_sizes)
    scale = (original / np.maximum(content, 1)).astype(np.float32)[:, None, ::-1]  # [B, 1, xy]
    limit = original.astype(np.float32)[:, None, ::-1]
    with np.errstate(invalid="ignore"):  # rows that are not finite are dropped below
        scaled = found.boxes * np.tile(scale, 2)
        boxes = np.clip(scaled, 0, np.tile(limit, 2))
    keep = found.valid & np.isfinite(boxes).all(-1) & np.isfinite(found.scores)
    images = []
    for i in np.flatnonzero(batch.real).tolist():
        height, width = original[i].tolist()
        image = ImageDetections(
            id=ids[i],
            boxes=boxes[i][keep[i]],
            scores=found.scores[i][keep[i]],
            labels=found.labels[i][keep[i]],
        )
        masks = None if found.masks is None else found.masks[i][keep[i]]
        images.append(Moved(image, scaled[i][keep[i]], masks, (height, width)))
    return images
