"""Where numbers and images of a run go: JSON lines and TensorBoard, behind one protocol."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from jdet.atomic_files import plain, write_text
from jdet.train.folders import METRICS


class Writer(Protocol):
    """Protocol of the writers of a run's numbers and images."""

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes numbers; texts are for writers that can hold them."""

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes images, uint8 [H, W, 3] RGB, where the writer can."""

    def close(self) -> None:
        """Flushes and releases what is held."""


class JsonlWriter:
    """One JSON object per line, ``{"step": …, name: value, …}``; numbers that are not finite are null.

    A line is on disk when the call returns. Images have no place here.
    """

    def __init__(self, path: str | Path, keep_until: int | None = None):
        """Opens the file to append to it.

        Args:
            path: of the file.
            keep_until: step a run goes on from: later lines are dropped, as it writes them again,
                and so is a line cut short by a crash. None: an old file is emptied.
        """
        path = Path(path)
        kept = []
        if keep_until is not None and path.exists():
            for line in path.read_text(errors="replace").splitlines(keepends=True):
                try:
                    late = json.loads(line)["step"] > keep_until
                except (ValueError, KeyError, TypeError):
                    continue
                if not late and line.endswith("\n"):
                    kept.append(line)
        write_text(path, "".join(kept))
        self._file = path.open("a")

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends a line."""
        self._file.write(json.dumps(plain({"step": step, **values}), allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Leaves images to other writers."""

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoardWriter:
    """Event files that TensorBoard shows.

    Events are written as they come, not in a thread as ``SummaryWriter`` does, whose queue waits for
    ever once the disk is full.
    """

    _FLUSH_SECONDS = 20.0

    def __init__(self, directory: str | Path, keep_until: int | None = None):
        """Begins a new event file.

        Args:
            directory: of the event files.
            keep_until: step a run goes on from: what older files hold beyond it is hidden. None:
                all of it is.
        """
        # Here, for they take a while and import torch where that is installed.
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        messages: Any = event_pb2  # made at import, so no type checker sees them
        self._summary, self._event = summary, messages.Event
        self._events = event_file_writer.EventsWriter(
            str(Path(directory) / "events"), f".{time.time_ns()}"
        )
        start = messages.SessionLog(status=messages.SessionLog.START)
        self._add(0 if keep_until is None else keep_until + 1, session_log=start)
        self._flushed = 0.0

    def _add(self, step: int, **content: Any) -> None:
        self._events.write_event(self._event(wall_time=time.time(), step=step, **content))

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds a point to the curve of every finite number."""
        for name, value in values.items():
            if isinstance(value, int | float | np.number) and math.isfinite(value):
                self._add(step, summary=self._summary.scalar(_tag(name), float(value)))
        if time.monotonic() - self._flushed > self._FLUSH_SECONDS:
            self._events.flush()
            self._flushed = time.monotonic()

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Adds images."""
        for name, image in images.items():
            self._add(step, summary=self._summary.image(_tag(name), image, dataformats="HWC"))

    def close(self) -> None:
        """Closes the event file."""
        self._events.close()


def _tag(name: str) -> str:
    """A name as TensorBoard accepts it; tensorboardX would warn about every name that it has to change."""
    return re.sub(r"[^-/\w.]", "_", name).lstrip("/")


@contextlib.contextmanager
def writers_in(folder: Path, keep_until: int | None = None) -> Iterator[list[Writer]]:
    """Both writers in the folder of a run, closed at the end; none but on process 0.

    Args:
        folder: of the run.
        keep_until: as of both.
    """
    with contextlib.ExitStack() as stack:
        writers: list[Writer] = []
        if jax.process_index() == 0:
            for make, path in ((JsonlWriter, folder / METRICS), (TensorBoardWriter, folder)):
                writers.append(make(path, keep_until))
                stack.callback(writers[-1].close)
        yield writers
