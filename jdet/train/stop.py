"""Signals that ask a run to end, heard between two steps."""

from __future__ import annotations

import signal
import threading
from typing import Any


class StopRequest:
    """Turns SIGTERM and SIGINT into a request to end after the step; a second SIGINT aborts.

    Outside the main thread, where Python allows no handlers, signals do what they did before.
    """

    def __init__(self):
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._received is not None

    @property
    def name(self) -> str:
        """The signal, or what stands for one that another process got."""
        return signal.Signals(self._received).name if self.requested else "another process"

    @property
    def exit_code(self) -> int:
        """What the shell is told: 130 for SIGINT, 0 for SIGTERM."""
        return 130 if self._received == signal.SIGINT else 0

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
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
