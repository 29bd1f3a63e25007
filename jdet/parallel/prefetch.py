"""Transfers batches to the devices ahead of the step that needs them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator

from jax.sharding import Mesh

from jdet.parallel import broadcast
from jdet.parallel.mesh import to_global
from jdet.types import Batch


class DevicePrefetcher(Iterator[Batch]):
    """Fetches and places batches in a thread, so that input and computation overlap.

    An input that judges its first epoch (``jdet.data.stream.BatchStream.check_first_epoch``) is asked by
    ``next``, in the thread of the consumer: there the processes of a run can tell each other what they met.

    An error of the input surfaces at the ``next`` that would have returned the batch. Use as a
    context manager or call ``close``; the input is closed with it, where it has a ``close``.
    """

    _END = object()

    def __init__(self, batches: Iterable[Batch], mesh: Mesh, depth: int = 2):
        """Starts fetching.

        Args:
            batches: host-local batches of numpy arrays.
            mesh: of the run.
            depth: batches on device ahead of the one in use.
        """
        self._batches = batches
        self._mesh = mesh
        self._queue: queue.Queue = queue.Queue(maxsize=depth)
        self._taken = None
        self._position = getattr(batches, "position", 0)  # of the batch that the consumer gets next
        self._check = getattr(batches, "check_first_epoch", None)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fetch, name="prefetch", daemon=True)
        self._thread.start()

    def _fetch(self) -> None:
        try:
            for batch in self._batches:
                if self._stop.is_set() or not self._put(to_global(batch, self._mesh)):
                    return
            self._put(self._END)
        except BaseException as error:  # handed to the consumer, which raises it
            self._put(error)

    def _put(self, item) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def wait(self, seconds: float) -> bool:
        """Waits for the next batch; True once ``next`` would return or raise at once."""
        if self._taken is None and not self._stop.is_set():
            try:
                self._taken = self._queue.get(timeout=seconds)
            except queue.Empty:
                return False
        return True

    def __next__(self) -> Batch:
        while not self.wait(1.0):
            pass
        item, self._taken = self._taken, None
        if isinstance(item, Batch):
            self._position += 1
            if self._check is not None:
                self._check(self._position, broadcast.gather)
            return item
        self._stop.set()
        if item is self._END or item is None:
            raise StopIteration
        raise item

    def close(self) -> None:
        """Stops the thread and closes the input, unless the input does not return in a few seconds."""
        self._stop.set()
        self._thread.join(timeout=5.0)
        if not self._thread.is_alive() and hasattr(self._batches, "close"):
            self._batches.close()

    def __enter__(self) -> DevicePrefetcher:
        return self

    def __exit__(self, *_) -> None:
        self.close()
