"""Signals that ask a run to end, checked between steps."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

_questions = itertools.count(1)


class StopRequest:
    """Turns SIGTERM, SIGHUP and SIGINT into a request to end after the step; a second SIGINT aborts.

    SIGHUP, of a terminal that goes away, stays ignored where it is (``nohup``).

    Of several processes one is enough to hear it: JAX's preemption service, which listens for SIGTERM
    itself, settles on a step that none of them has passed. Outside the main thread, where Python
    allows no handlers, signals do what they did before.
    """

    def __init__(self):
        self._received: int | None = None
        self._agreed = False
        self._several = jax.process_count() > 1
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether this process was asked to end."""
        return self._agreed if self._several else self._received is not None

    def reached(self) -> bool:
        """Whether to end here: the same answer on all processes, all of which must call it equally often.

        None waits for the others unless a signal has come.
        """
        if self._several and not self._agreed:
            # Counted here and not from the run's steps: where a signal comes before the first
            # question, the service settles on one more than the last number it was asked about.
            self._agreed = multihost_utils.reached_preemption_sync_point(next(_questions))
        return self.requested

    @property
    def name(self) -> str:
        """The signal, or what stands for one that the runtime or another process got."""
        if self._received is not None:
            return signal.Signals(self._received).name
        return "asked to stop"

    @property
    def exit_code(self) -> int:
        """Exit code of the program: 130 for SIGINT, else 0."""
        return 130 if self._received == signal.SIGINT else 0

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGINT] if self._several else [signal.SIGTERM, signal.SIGINT]
            if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
                numbers.append(signal.SIGHUP)
            for number in numbers:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _) -> None:
        # Nothing is printed here: the signal may have come in the middle of a print.
        if number == signal.SIGINT and self._received is not None:
            raise KeyboardInterrupt
        self._received = number
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
