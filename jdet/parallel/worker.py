"""The side of the program: joins the others as its agent says, and tells it how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from absl import logging

from jdet.parallel.coordinator import KILLED, RAISED, REFUSED
from jdet.parallel.supervisor import ASSIGNED, TRY_AGAIN
from jdet.types import ConfigError, DataError

HEARTBEAT_SECONDS = 45
"""Silence after which JAX's own service gives a process up whose agent lives: within a minute, with
the moments until all know it."""


def is_assigned() -> bool:
    """Whether an agent started this program as one process of several."""
    return ASSIGNED in os.environ


class Session:
    """What the program says to its agent; nothing where there is none."""

    def __init__(self, report: socket.socket | None = None):
        """Takes the connection over."""
        self._report = report

    def returns(self, code: int) -> int:
        """Says that the program ended in good order, and returns its exit code."""
        self._say(ended=code)
        return code

    def fails(self, error: BaseException) -> None:
        """Says which error ends the program."""
        mendable = isinstance(error, ConfigError | DataError)
        first_line = next(iter(str(error).strip().splitlines()), "")
        kind = "" if mendable else f"{type(error).__name__}: "
        bad = REFUSED if mendable else RAISED
        if isinstance(error, KeyboardInterrupt):  # a signal: the same command may do next time
            bad = KILLED
        self._say(bad=bad, why=f"ended: {kind}{first_line}"[:2000])

    def _say(self, **message: Any) -> None:
        if self._report is not None:
            with contextlib.suppress(OSError):
                self._report.sendall(json.dumps(message).encode())


@contextlib.contextmanager
def joined() -> Iterator[Session]:
    """Joins the other processes where an agent started this one; an error inside is reported to it."""
    if not is_assigned():
        yield Session()
        return
    assigned = json.loads(os.environ.pop(ASSIGNED))  # not for the workers of the input
    report = socket.socket(fileno=assigned["report"])
    report.set_inheritable(False)
    threading.Thread(target=_end_with_agent, args=(report,), daemon=True).start()
    session = Session(report)
    try:
        import jax

        jax.distributed.initialize(
            assigned["coordinator"],
            assigned["count"],
            assigned["index"],
            assigned["local_device_ids"],
            cluster_detection_method="deactivate",
            coordinator_bind_address=assigned["bind"],
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
        if assigned["index"]:
            logging.set_verbosity(logging.WARNING)  # what all would say, process 0 says
        yield session
    except BaseException as error:
        session.fails(error)
        raise


def _end_with_agent(report: socket.socket) -> None:
    with contextlib.suppress(OSError):
        report.recv(1)  # nothing is ever sent: this returns when the agent is gone
    print("error: the agent of this process is gone; it stops too", file=sys.stderr, flush=True)
    os._exit(TRY_AGAIN)
