"""Work of the host in a thread of its own, so that neither devices nor training wait for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Background:
    """Makes calls one after another, in the order in which they were handed over.

    The first error is raised by the next ``submit`` or ``wait``. As a context manager it waits for
    all at the end; where the block ends with an error, calls that have not begun are dropped.
    """

    def __init__(self, most: int):
        """Starts nothing yet.

        Args:
            most: calls handed over and not yet finished; a further one waits until there are fewer.
        """
        self._most = most
        self._calls: deque[Future] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="background")

    def submit(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Hands a call over; returns before it is made."""
        self._settle(self._most - 1)
        self._calls.append(self._thread.submit(call, *arguments))

    def wait(self) -> None:
        """Returns once all calls are finished."""
        self._settle(0)

    def _settle(self, most: int) -> None:
        while len(self._calls) > most or (self._calls and self._calls[0].done()):
            try:
                self._calls.popleft().result()
            except BaseException:
                self._drop()
                raise

    def _drop(self) -> None:
        """Calls after one that failed have nothing to go on from."""
        while self._calls:
            self._calls.pop().cancel()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)
