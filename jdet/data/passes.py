"""One pass over a set in chunks: in this process, and in others once that is worth it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from jdet.data.readers.opencv import configure_opencv
from jdet.types import DataError

POOL_FROM = 10.0
"""Seconds that the rest of the pass must take in one process for others to be started."""


class Task(Protocol):
    """What is done; picklable."""

    def part(self, first: int) -> Any:
        """The result for the chunk that begins at ``first``."""


def results(task: Task, firsts: Sequence[int], processes: int, what: str) -> Iterator[Any]:
    """The results of all chunks, in order.

    Args:
        task: what is done.
        firsts: where the chunks begin.
        processes: that work; 0: as many as there are processors, where it takes long.
        what: the processes do, for messages: "a process that …".

    Raises:
        DataError: a process was ended from outside; and what ``task`` raises.
    """
    left = deque(firsts)
    if processes <= 1:
        started = time.monotonic()
        while left:
            yield task.part(left.popleft())
            most = processes or len(os.sched_getaffinity(0))
            if most > 1 and (time.monotonic() - started) * len(left) > POOL_FROM:
                break
            started = time.monotonic()
        processes = min(len(os.sched_getaffinity(0)), len(left))
    if not left:
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of JAX's threads
    with ProcessPoolExecutor(processes, context, _start, (task,)) as pool:
        waiting: deque = deque()
        try:
            while waiting or left:
                while left and len(waiting) <= processes:
                    waiting.append(pool.submit(_part, left.popleft()))
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                f"a process that {what} was ended, as the system does where memory runs out"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


_task: Task
"""Of a worker process."""


def _start(task: Task) -> None:
    global _task
    _task = task
    configure_opencv()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers


def _part(first: int) -> Any:
    return _task.part(first)
