"""Input pipeline: a source of examples in, batches of numpy arrays out.

It is a chain of grain `MapDataset`s with random access from end to end: batch k is a pure function of
(seed, k). What is drawn for an image depends only on the seed and on the image's position in the endless
stream of epochs, never on workers, threads or processes, so that a run resumes at ``start=k`` with any
number of them. Every random operation has its own seed, derived from the config's seed and the operation's
name: adding an operation leaves the random numbers of the others unchanged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from jdet.data import balance
from jdet.data.batching import EvalOrder, TrainOrder, shapes_of
from jdet.data.mix import Mix, Stop
from jdet.data.reader import Reader
from jdet.data.readers.opencv import configure_opencv
from jdet.data.redraw import Redraw, check_objects
from jdet.data.stream import BatchStream, collate
from jdet.data.tiles import RandomTile, TileReader, TileRow
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.element import Element, Operation
from jdet.data.transforms.finish import Finish
from jdet.data.transforms.intensity import ImageValues
from jdet.data.transforms.multi_scale import FinishViews, View
from jdet.data.transforms.resample import Size
from jdet.data.transforms.resize import Resize
from jdet.types import DataError, ImageKind, Source, require


def train_batches(
    source: Source,
    *,
    resize: Resize,
    augment: Augment,
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
    min_usable: float = 0.0,
    mask_size: int = 0,
    values: ImageValues | None = None,
    tile: RandomTile | None = None,
    mix: Mix | None = None,
    others: Source | None = None,
) -> BatchStream:
    """Endless batches for training, reshuffled every epoch; batches straddle epochs.

    Args:
        source: where the examples come from. With ``repeat_factors`` (``jdet.data.balance``) images come
            so often in an epoch, on average.
        resize: what the network sees of images. Where they keep their proportions, all images of a batch
            have one shape, and the batches of all shapes are mixed as the images are
            (``jdet.data.batching``).
        augment: what happens to images at random.
        max_boxes: N, rows for objects; which are kept of more, ``Finish`` says.
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
        min_usable: least share of images that can be used (``BatchStream.check_first_epoch``).
        mask_size: side of the objects' masks, M; 0: batches have none.
        values: what the values of images mean; None: what their kind says, and that all were measured.
        tile: cuts a tile out of every image before anything else happens to it.
        mix: what of other images comes into an image before it is augmented.
        others: where those images come from; None: ``source``.

    Raises:
        ConfigError: a value is out of range, or the augmentation does not suit the resize.
        DataError: the source is empty; later, from the iterator, an image cannot be read.
    """
    require(max_boxes > 0, "config.data.max_boxes", max_boxes, "positive")
    require(start >= 0, "start", start, "at least 0")
    local = _check(source, batch_size, process_index, process_count, on_error)
    values = values or ImageValues.of(ImageKind.of(source))
    reader = Reader(source, len(source), on_error, values=values)
    repeats = balance.repeats_of(source)
    if resize.keeps_ratio or repeats is not None:
        # grain's shuffle knows neither shapes nor repeats, and TrainOrder would draw other permutations
        # than grain's, on which the numbers of trainings with warped images rest; so there are two.
        shapes = np.zeros(len(source), np.int32)
        if resize.keeps_ratio:
            side = tile.side if tile else 0
            shapes = shapes_of(source, resize, len(source), on_error, side)
        order = TrainOrder(shapes, batch_size, _seed(seed, "shuffle"), repeats)
        data = grain.MapDataset.source(_Ordered(reader, order, resize.shapes, _ENDLESS))
    else:
        data = grain.MapDataset.source(reader)
        data = data.shuffle(seed=_seed(seed, "shuffle")).repeat()
    kind = ImageKind.of(source)
    fill = augment.fill if kind[1:3] == ("rgb", "uint8") else values.neutral
    operations: dict[str, Operation] = {"tile": tile} if tile else {}
    if mix is not None and mix.fires:
        drawn = others or source
        drawn = dataclasses.replace(reader, source=drawn, count=len(drawn))
        operations |= mix.operations(drawn, fill, tile)
        if mix.stop:
            data = data.map_with_index(Stop(mix.stop * batch_size))
    operations |= augment.operations(resize)
    for name, operation in operations.items():
        data = data.random_map(operation, seed=_seed(seed, name))
    if resize.redraws:
        check_objects(reader)
        redraw = Redraw(reader, tuple(operations.values()), resize)
        data = data.random_map(redraw, seed=_seed(seed, "redraw"))
    data = data.map(Finish(resize, max_boxes, fill, kind.dtype, mask_size, values))
    data = data.batch(local, drop_remainder=True, batch_fn=collate)
    data = data[process_index::process_count][start:]
    batches = _prefetch(data, workers, threads, prefetch)
    return BatchStream(
        batches,
        batch_size=batch_size,
        position=start,
        length=None,
        epoch=balance.epoch_length(source),
        images=len(source),
        min_usable=min_usable,
    )


def eval_batches(
    source: Source,
    *,
    resize: Resize | None = None,
    views: Sequence[View] = (),
    batch_size: int,
    max_boxes: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
    threads: int = 2,
    prefetch: int = 4,
    on_error: str = "raise",
    limit: int = 0,
    values: ImageValues | None = None,
) -> BatchStream:
    """The source once, resized; every process gets the same number of whole batches.

    Images come in the order of the source, or, where they keep their proportions, shape by shape. Rows
    that only fill up batches have ``real`` False and ``index`` 0. With ``on_error="skip"`` an image that
    cannot be read has ``real`` False too (and its own index), which leaves it out of the evaluation; the
    report names it.

    Args:
        source: where the examples come from.
        resize: what the network sees of images; None where there are views.
        views: several inputs per image: then ``images`` and ``image_sizes`` are tuples with an entry for
            each, as ``jdet.data.transforms.multi_scale`` makes them, and there are no objects.
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
        values: as in `train_batches`.

    Raises:
        ConfigError: a value is out of range.
        DataError: the source is empty; later, from the iterator, an image cannot be read.
        TypeError: neither or both of ``resize`` and ``views`` are given.
    """
    if (resize is None) == (not views):
        raise TypeError("eval_batches takes either `resize` or `views`")
    require(max_boxes >= 0, "max_boxes", max_boxes, "at least 0")
    require(limit >= 0, "limit", limit, "at least 0")
    local = _check(source, batch_size, process_index, process_count, on_error)
    count = min(len(source), limit or len(source))
    length = -(-count // batch_size)
    kind = ImageKind.of(source)
    values = values or ImageValues.of(kind)
    reader = Reader(source, count, on_error, padded=length * batch_size, values=values)
    finish: Any = FinishViews(tuple(views), kind)
    if resize is None:
        resize = views[0].resize
    else:
        finish = Finish(resize, max_boxes, (0.0,) * kind.channels, kind.dtype)
    rows: Any = reader
    if resize and resize.keeps_ratio:
        # With views as well, so that all images of a batch lie in the same few views.
        order = EvalOrder(shapes_of(source, resize, count, on_error), batch_size)
        length = len(order) // batch_size
        rows = _Ordered(reader, order, resize.shapes, len(order))
    data = grain.MapDataset.source(rows).map(finish)
    data = data.batch(local, drop_remainder=True, batch_fn=collate)
    batches = _prefetch(data[process_index::process_count], workers, threads, prefetch)
    return BatchStream(batches, batch_size=batch_size, position=0, length=length, epoch=count)


def tile_batches(
    source: Source,
    rows: Sequence[TileRow],
    *,
    resize: Resize,
    batch_size: int,
    max_boxes: int = 0,
    process_count: int = 1,
    workers: int = 0,
    threads: int = 2,
    prefetch: int = 4,
    on_error: str = "raise",
    count: int,
    values: ImageValues | None = None,
) -> BatchStream:
    """The tiles of a source once, in the order of ``rows``.

    ``index`` is that of the image, ``real`` is True for its last tile alone; with objects, for every tile.

    Args:
        source: where the examples come from.
        rows: of this process (``jdet.data.tiles.tile_rows``).
        resize: what the network sees of tiles.
        batch_size: tiles per batch, over all processes.
        max_boxes: N, rows for objects; 0 leaves them out. Those that a tile cuts have ``ignore``.
        process_count: processes.
        workers: as in `train_batches`.
        threads: as in `train_batches`.
        prefetch: as in `train_batches`.
        on_error: as in `train_batches`; an image that cannot be read has no real row.
        count: images of the source that the tiles are of.
        values: as in `train_batches`.
    """
    local = batch_size // process_count
    kind = ImageKind.of(source)
    values = values or ImageValues.of(kind)
    finish = Finish(resize, max_boxes, (0.0,) * kind.channels, kind.dtype)
    images = Reader(source, count, on_error, values=values)
    reader: Any = TileReader(images, rows, finish)
    data = grain.MapDataset.source(reader)
    data = data.batch(local, drop_remainder=True, batch_fn=collate)
    batches = _prefetch(data, workers, threads, prefetch)
    return BatchStream(
        batches,
        batch_size=batch_size,
        position=0,
        length=len(rows) // local,
        epoch=len(rows) * process_count,
        images=count,
    )


_ENDLESS = 1 << 60
"""Length given to grain for a stream without an end."""


@dataclasses.dataclass(frozen=True)
class _Ordered:
    """Images in the order of an ``order``, each with the shape of its batch."""

    reader: Reader
    order: TrainOrder | EvalOrder
    shapes: tuple[Size, ...]
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Element:
        slot = self.order[index]
        element = Element() if slot.image < 0 else self.reader[slot.image]
        return element._replace(shape=self.shapes[slot.shape])


def _prefetch(
    data: grain.MapDataset, workers: int, threads: int, prefetch: int
) -> grain.IterDataset:
    """Adds threads and, if asked for, worker processes."""
    for key, value in (("workers", workers), ("threads", threads), ("prefetch", prefetch)):
        require(value >= 0, f"config.data.{key}", value, "at least 0")
    configure_opencv()
    ahead = -(-prefetch // max(workers, 1))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    batches = data.to_iter_dataset(options)
    if not workers:
        return batches
    # grain reads an absl flag here, which fails in notebooks and tests, where no flags are parsed.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
    return batches.mp_prefetch(processes, worker_init_fn=_start_worker)


def _start_worker(index: int, count: int) -> None:
    """Runs first in every worker process, in its main thread."""
    del index, count
    configure_opencv()
    # An interrupt from the terminal reaches the workers too; the parent ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _check(source: Source, batch_size: int, index: int, count: int, on_error: str) -> int:
    """Checks what both streams share and returns the batch size of one process."""
    require(on_error in ("raise", "skip"), "config.data.on_error", on_error, "'raise' or 'skip'")
    require(0 <= index < count, "process_index", index, f"in 0 … {count - 1}")
    divides = batch_size > 0 and batch_size % count == 0
    require(divides, "batch_size", batch_size, f"a positive multiple of the {count} processes")
    if not len(source):
        raise DataError(f"{type(source).__name__}: the data set holds no images")
    return batch_size // count


def _seed(seed: int, name: str) -> int:
    """Seed (32 bits) of one random operation."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")
