"""Values from every process to every process of a run, as bytes through the devices.

All processes must call these together. With one process nothing travels.
"""

from __future__ import annotations

import pickle
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")


def gather(value: T) -> list[T]:
    """The values of all processes, in their order, on all of them.

    Args:
        value: of this process; picklable.
    """
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(data)))
    # Few sizes, for each is compiled once.
    padded = np.zeros(1 << int(sizes.max() - 1).bit_length(), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    return [pickle.loads(row[:n].tobytes()) for row, n in zip(rows, sizes.tolist(), strict=True)]


def from_main(action: Callable[[], T]) -> T:
    """Performs an action on process 0 only and returns its result on all; its error is raised on all."""
    if jax.process_count() == 1:
        return action()
    value: Any = None
    error: Exception | None = None
    if jax.process_index() == 0:
        try:
            value = action()
        except Exception as raised:
            error = raised
    failure = None if error is None else (type(error), str(error))
    value, failure = gather((value, failure))[0]
    if error is not None:
        raise error
    if failure is not None:
        kind, text = failure
        try:
            raised = kind(text)
        except TypeError:  # an exception that takes other arguments
            raised = RuntimeError(text)
        raise raised
    return value


def host_names() -> list[str]:
    """Names of the processes for messages: number and machine of each, in their order."""
    return [f"process {i} (host {name})" for i, name in enumerate(gather(socket.gethostname()))]
