"""Batches as they leave the input pipeline, and what was left out of them.

A row of a batch travels as a ``Batch`` without its leading axis; rows are stacked field by field. A field
that no row has (None) stays None.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import logging

from jdet.data import worker_errors
from jdet.data.first_look import check_share, enough
from jdet.data.transforms.finish import Row
from jdet.types import Batch

NAMED = 10
"""Images that cannot be used of which the log has the reason, each when it is met first."""


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
        images: int | None = None,
        min_usable: float = 0.0,
    ):
        """Starts reading.

        Args:
            batches: of ``Loaded``.
            batch_size: images per batch, over all processes.
            position: index of the first batch.
            length: number of batches; None for an endless stream.
            epoch: images of an epoch.
            images: of the source; None: as many as an epoch has.
            min_usable: least share of images that can be used, for ``check_first_epoch``.
        """
        self.length = length
        self.position = position
        self._batch_size = batch_size
        self._epoch, self._images = epoch, epoch if images is None else images
        self._iterator: Any = _explained(iter, batches)
        self._skipped: dict[str, str] = {}
        self._skips = self._crowded = self._dropped = 0
        self._told = 0, 0  # unreadable images and objects left out that the log has summed up
        self._min_usable, self._rows = min_usable, 0
        self._epoch_end = position + -(-epoch // batch_size)
        self._first_epoch: tuple[int, int, dict[str, str]] | None = None

    @property
    def next_element(self) -> int:
        """Images ahead of the next batch, over all processes."""
        return self.position * self._batch_size

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            DataError: an image cannot be read.
        """
        loaded: Loaded = _explained(next, self._iterator)
        self.position += 1
        for name, reason in loaded.skipped:
            if name not in self._skipped and len(self._skipped) < NAMED:
                logging.warning("Skipped %s", reason)  # the reason names the file
            self._skipped[name] = reason
            self._skips += 1
        for name, dropped in loaded.crowded:
            if not self._crowded:
                logging.warning(
                    "%s has %d objects more than data.max_boxes; crowds and difficult ones are left "
                    "out, then the smallest. "
                    "Further images like this one are only counted.",
                    *(name, dropped),
                )
            self._crowded += 1
            self._dropped += dropped
        self._rows += len(loaded.batch.real)
        if self.position == self._epoch_end:
            self._first_epoch = self._rows, self._skips, dict(self._skipped)
        if self.next_element % self._epoch < self._batch_size:
            self._sum_up(self.next_element // self._epoch)
        # Plain arrays: grain's own, which lie in memory shared with a worker, lose it with the
        # first view of them that goes.
        return _map_fields(np.asarray, loaded.batch)

    def _sum_up(self, epoch: int) -> None:
        """Tells at the end of an epoch what was left out, where that is more than was told before."""
        lines = []
        if len(self._skipped) > self._told[0]:
            names = sorted(self._skipped)
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            lines.append(
                f"{len(names)} of {self._images} images cannot be used and are left out "
                f"({', '.join(names[:NAMED])}{more})"
            )
        if self._dropped and not self._told[1]:
            lines.append(
                f"{self._crowded} images with more than data.max_boxes objects lost {self._dropped}"
            )
        if lines:
            logging.warning("Until the end of epoch %d: %s", epoch, "; ".join(lines))
        self._told = len(self._skipped), self._dropped

    def check_first_epoch(self, position: int, gather: Callable[[Any], Sequence[Any]]) -> None:
        """Refuses a set of which too little can be used, once a whole epoch was delivered.

        All processes ask at the same positions and come to the same answer. Where a run goes on, it is
        the first whole epoch since then.

        Args:
            position: index of the batch that comes next; that of others may be delivered already.
            gather: makes the values of all processes of one's own.

        Raises:
            DataError: none or too few of the images of all processes could be used.
        """
        if position != self._epoch_end or self._first_epoch is None:
            return
        rows, skips, skipped = self._first_epoch
        counts = gather((rows, skips))
        share = 1 - sum(skips for _, skips in counts) / sum(rows for rows, _ in counts)
        if not enough(share, self._min_usable):  # for all: only then the reasons travel
            reasons = {id: reason for each in gather(skipped) for id, reason in each.items()}
            check_share(share, self._min_usable, reasons, "training data, the first epoch")

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


class Loaded(NamedTuple):
    """A batch with its notes, as it travels from a worker.

    Attributes:
        batch: of numpy arrays.
        skipped: name of each image that could not be read, and the reason.
        crowded: name of each image with more than ``max_boxes`` objects, and how many were left out.
    """

    batch: Batch
    skipped: tuple[tuple[str, str], ...]
    crowded: tuple[tuple[str, int], ...]


def collate(rows: Sequence[Row]) -> Loaded:
    """Stacks rows into a batch."""
    first, others = rows[0].fields, [row.fields for row in rows[1:]]
    return Loaded(
        batch=_map_fields(lambda *arrays: np.stack(arrays), first, *others),
        skipped=tuple((row.id, row.problem) for row in rows if row.problem),
        crowded=tuple((row.id, row.dropped) for row in rows if row.dropped),
    )


def _explained(call: Callable[[Any], Any], argument: Any) -> Any:
    """Calls, and says in words what ended the workers."""
    try:
        return call(argument)
    except (OSError, RuntimeError) as error:
        if explained := worker_errors.explain(error):
            raise explained from error
        raise


def _map_fields(function: Callable[..., np.ndarray], *batches: Batch) -> Batch:
    """Applies a function to each field of several batches, and to each entry of a field with views."""

    def apply(*values: Any) -> Any:
        if values[0] is None:
            return None
        if isinstance(values[0], tuple):
            return tuple(map(apply, *values))
        return function(*values)

    names = Batch._fields
    return Batch(**{name: apply(*(getattr(b, name) for b in batches)) for name in names})
