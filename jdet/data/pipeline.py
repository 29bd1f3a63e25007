"""Input pipeline: a source of examples in, batches of numpy arrays out.

A chain of grain `MapDataset`s, random access from end to end: batch k is a pure function of (seed,
k). What happens to an image depends on the seed and on its position in the endless stream of
epochs alone, never on workers, threads or processes, so that a run resumes at ``start=k`` with any
number of them. Every random operation has a seed of its own, made from the config's seed and the
operation's name: adding an operation leaves the draws of the others as they were.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags, logging

from jdet.data.batching import EvalOrder, TrainOrder, shapes_of
from jdet.data.image_io import check_size, configure_opencv, read_image
from jdet.data.transforms.geometry import Size
from jdet.data.transforms.multi_scale import FinishViews, View
from jdet.data.transforms.resize import Resize
from jdet.data.transforms.ssd import Augment, Element, Finish, Row, operations
from jdet.types import Batch, ConfigError, DataError, Source


class Report(NamedTuple):
    """What a stream left out so far.

    Attributes:
        skipped: reason by id of every image that could not be read.
        skips: how often such an image was met (each epoch counts).
        crowded: how often an image had more than ``max_boxes`` objects.
        dropped_boxes: objects left out of those.
    """

    skipped: dict[str, str]
    skips: int
    crowded: int
    dropped_boxes: int


class BatchStream(Iterator[Batch]):
    """Iterator over batches that owns its threads and processes; close it, or use ``with``.

    Attributes:
        length: number of batches in all, None for an endless stream.
        position: index k of the batch that comes next; ``train_batches(start=k)`` resumes there.
    """

    def __init__(
        self,
        batches: grain.IterDataset,
        *,
        batch_size: int,
        position: int,
        length: int | None,
        epoch: int,
    ):
        self.length = length
        self.position = position
        self._batch_size = batch_size
        self._epoch = epoch  # images
        self._iterator: Any = iter(batches)
        self._skipped: dict[str, str] = {}
        self._skips = self._crowded = self._dropped = 0

    @property
    def next_element(self) -> int:
        """Images ahead of the next batch, over all processes; epochs = that / len(source)."""
        return self.position * self._batch_size

    def __next__(self) -> Batch:
        loaded: _Loaded = next(self._iterator)
        self.position += 1
        for name, reason in loaded.skipped:
            if name not in self._skipped:
                logging.warning("Skipped %s", reason)  # the reason names the file
            self._skipped[name] = reason
            self._skips += 1
        for name, dropped in loaded.crowded:
            if not self._crowded:
                logging.warning(
                    "%s has %d objects more than data.max_boxes; the smallest are left out. "
                    "Further images like this one are only counted.",
                    *(name, dropped),
                )
            self._crowded += 1
            self._dropped += dropped
        finished, into = divmod(self.next_element, self._epoch)
        if into < self._batch_size and (self._skipped or self._crowded):
            logging.warning(
                "Until the end of epoch %d: %d unreadable images left out%s; %d images with more "
                "than data.max_boxes objects lost %d",
                finished,
                self._skips,
                f" ({', '.join(sorted(self._skipped))})" if self._skipped else "",
                self._crowded,
                self._dropped,
            )
        # Plain arrays: grain's own, which lie in memory shared with a worker, lose it with the
        # first view of them that goes.
        return Batch(
            *(
                tuple(map(np.asarray, field)) if isinstance(field, tuple) else np.asarray(field)
                for field in loaded.batch
            )
        )

    def report(self) -> Report:
        """What was left out of the batches delivered so far."""
        return Report(dict(self._skipped), self._skips, self._crowded, self._dropped)

    def close(self) -> None:
        """Stops threads and worker processes; may be called twice."""
        if isinstance(self._iterator, grain.DatasetIterator):
            self._iterator.close()
            self._iterator = iter(())
            # grain's iterators lie in reference cycles, and their finalizers fail when they only
            # run while the interpreter shuts down.
            gc.collect()

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def train_batches(
    source: Source,
    *,
    input_size: int | Resize,
    augment: Mapping[str, Any],
    max_boxes: int,
    batch_size: int,
    seed: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
    threads: int = 2,
    prefetch: int = 4,
    on_error: str = "raise",
) -> BatchStream:
    """Endless batches for training, reshuffled every epoch; batches straddle epochs.

    Args:
        source: where the examples come from.
        input_size: side of the square network input, in pixels, or how images keep their proportions:
            then all images of a batch have one shape, and the batches of all shapes are mixed as the
            images are (``jdet.data.batching``).
        augment: group ``augment`` of the config.
        max_boxes: N, rows for objects; of an image with more, the largest are kept.
        batch_size: images per batch, over all processes.
        seed: of the shuffling and of every random operation.
        start: index of the first batch.
        process_index: of this process.
        process_count: processes; process p gets rows p·b … (p+1)·b-1 of every batch, b =
            batch_size / process_count, so that the batch as a whole is the same for any count.
        workers: worker processes; 0 reads in threads of this process.
        threads: reader threads of this process, or of each worker; 0 reads when asked.
        prefetch: batches made ahead, by all workers together.
        on_error: "raise", or "skip": an unreadable image becomes a blank one without objects,
            with ``real`` False, and is reported.

    Raises:
        ConfigError: a value that cannot be.
        DataError: the source is empty; later, from the iterator, an image cannot be read.
    """
    options = Augment.from_config(augment)
    _require(max_boxes > 0, "data.max_boxes", max_boxes, "positive")
    _require(start >= 0, "start", start, "at least 0")
    local = _check(source, batch_size, process_index, process_count, on_error)
    resize = _resize(input_size)
    reader = _Reader(source, len(source), on_error)
    if resize.keeps_ratio:
        shapes = shapes_of(source, resize, len(source), on_error)
        order = TrainOrder(shapes, batch_size, _seed(seed, "shuffle"))
        data = grain.MapDataset.source(_Ordered(reader, order, resize.shapes, _ENDLESS))
    else:
        data = grain.MapDataset.source(reader)
        data = data.shuffle(seed=_seed(seed, "shuffle")).repeat()
    for name, operation in operations(options, resize).items():
        data = data.random_map(operation, seed=_seed(seed, name))
    red, green, blue = options.mean
    data = data.map(Finish(resize, max_boxes, (float(red), float(green), float(blue))))
    data = data.batch(local, drop_remainder=True, batch_fn=_collate)
    data = data[process_index::process_count][start:]
    batches = _prefetch(data, workers, threads, prefetch)
    return BatchStream(
        batches, batch_size=batch_size, position=start, length=None, epoch=len(source)
    )


def eval_batches(
    source: Source,
    *,
    input_size: int | Resize | Sequence[View],
    batch_size: int,
    max_boxes: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
    threads: int = 2,
    prefetch: int = 4,
    on_error: str = "raise",
    limit: int = 0,
) -> BatchStream:
    """The source once, resized; every process gets the same number of whole batches.

    Images come in the order of the source, or, where they keep their proportions, shape by shape. Rows
    that only fill up batches have ``real`` False and ``index`` 0. With ``on_error="skip"`` an image that
    cannot be read has ``real`` False too (and its own index), which leaves it out of the evaluation; the
    report names it.

    Args:
        source: where the examples come from.
        input_size: side of the square network input, in pixels; or how images keep their proportions;
            or several views: then ``images`` and ``image_sizes`` are tuples with an entry for each, as
            ``jdet.data.transforms.multi_scale`` makes them, and there are no objects.
        batch_size: images per batch, over all processes.
        max_boxes: N, rows for objects; 0 leaves the objects out, as evaluators take the ground truth from
            the source itself.
        process_index: of this process.
        process_count: processes; rows are dealt out as in `train_batches`.
        workers: as in `train_batches`.
        threads: as in `train_batches`.
        prefetch: as in `train_batches`.
        on_error: as in `train_batches`.
        limit: only the first so many images; 0 means all.

    Raises:
        ConfigError: a value that cannot be.
        DataError: the source is empty; later, from the iterator, an image cannot be read.
    """
    _require(max_boxes >= 0, "max_boxes", max_boxes, "at least 0")
    _require(limit >= 0, "limit", limit, "at least 0")
    local = _check(source, batch_size, process_index, process_count, on_error)
    count = min(len(source), limit or len(source))
    length = -(-count // batch_size)
    reader = _Reader(source, count, on_error, padded=length * batch_size)
    finish: Any
    if isinstance(input_size, (int, Resize)):
        resize = _resize(input_size)
        finish = Finish(resize, max_boxes, (0.0, 0.0, 0.0))
    else:
        resize, finish = input_size[0].resize, FinishViews(tuple(input_size))
    rows: Any = reader
    if resize and resize.keeps_ratio:
        # Of views too: a batch is in few of them then.
        order = EvalOrder(shapes_of(source, resize, count, on_error), batch_size)
        length = len(order) // batch_size
        rows = _Ordered(reader, order, resize.shapes, len(order))
    data = grain.MapDataset.source(rows).map(finish)
    data = data.batch(local, drop_remainder=True, batch_fn=_collate)
    batches = _prefetch(data[process_index::process_count], workers, threads, prefetch)
    return BatchStream(batches, batch_size=batch_size, position=0, length=length, epoch=count)


@dataclasses.dataclass(frozen=True)
class _Reader:
    """The source with decoded images, followed by padding up to ``padded`` elements."""

    source: Source
    count: int
    on_error: str
    padded: int = 0

    def __len__(self) -> int:
        return max(self.count, self.padded)

    def __getitem__(self, index: int) -> Element:
        if index >= self.count:
            return Element()
        name = f"image {index} of {type(self.source).__name__}"
        try:
            example = self.source[index]
            name = example.id
            image = read_image(example.image, name="" if isinstance(example.image, str) else name)
            if not isinstance(example.image, np.ndarray) and hasattr(self.source, "image_size"):
                path = example.image if isinstance(example.image, str) else name
                check_size(image, self.source.image_size(index), path)
        except DataError as error:
            if self.on_error == "raise":
                raise
            return Element(index, name, problem=str(error))
        return Element(index, name, image, example.boxes, example.labels, example.ignore)


_ENDLESS = 1 << 60
"""Images of a stream without an end; grain wants a length."""


@dataclasses.dataclass(frozen=True)
class _Ordered:
    """Images in the order of an ``order``, each with the shape of its batch."""

    reader: _Reader
    order: TrainOrder | EvalOrder
    shapes: tuple[Size, ...]
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Element:
        seat = self.order[index]
        element = Element() if seat.image < 0 else self.reader[seat.image]
        return element._replace(shape=self.shapes[seat.shape])


def _resize(input_size: int | Resize) -> Resize:
    return Resize.square(input_size) if isinstance(input_size, int) else input_size


class _Loaded(NamedTuple):
    """A batch with its notes, as it travels from a worker."""

    batch: Batch
    skipped: tuple[tuple[str, str], ...]
    crowded: tuple[tuple[str, int], ...]


def _collate(rows: Sequence[Row]) -> _Loaded:
    columns = zip(*(row.fields for row in rows), strict=True)
    return _Loaded(
        batch=Batch(*map(_stack, columns)),
        skipped=tuple((row.id, row.problem) for row in rows if row.problem),
        crowded=tuple((row.id, row.dropped) for row in rows if row.dropped),
    )


def _stack(column: Sequence[Any]) -> Any:
    """Rows of a field as an array, or as a tuple of arrays where the field has several."""
    if isinstance(column[0], tuple):
        return tuple(map(np.stack, zip(*column, strict=True)))
    return np.stack(column)


def _prefetch(
    data: grain.MapDataset, workers: int, threads: int, prefetch: int
) -> grain.IterDataset:
    """Adds threads and, if asked for, worker processes."""
    for key, value in (("workers", workers), ("threads", threads), ("prefetch", prefetch)):
        _require(value >= 0, f"data.{key}", value, "at least 0")
    configure_opencv()
    ahead = -(-prefetch // max(workers, 1))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    batches = data.to_iter_dataset(options)
    if not workers:
        return batches
    # grain reads an absl flag here, which fails in notebooks and tests, where nobody parses flags.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
    return batches.mp_prefetch(processes, worker_init_fn=_start_worker)


def _start_worker(index: int, count: int) -> None:
    """Runs first in every worker process, in its main thread."""
    del index, count
    configure_opencv()
    # An interrupt from the terminal reaches the workers too; it is the parent that ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _check(source: Source, batch_size: int, index: int, count: int, on_error: str) -> int:
    """Checks what both streams share and returns the batch size of one process."""
    _require(on_error in ("raise", "skip"), "data.on_error", on_error, "'raise' or 'skip'")
    _require(0 <= index < count, "process_index", index, f"in 0 … {count - 1}")
    divides = batch_size > 0 and batch_size % count == 0
    _require(divides, "batch_size", batch_size, f"a positive multiple of the {count} processes")
    if not len(source):
        raise DataError(f"{type(source).__name__}: the data set holds no images")
    return batch_size // count


def _require(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{key} is {value!r}; it must be {expected}")


def _seed(seed: int, name: str) -> int:
    """Seed (32 bits) of one random operation."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")
