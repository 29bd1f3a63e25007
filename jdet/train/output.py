"""What is printed never ends a run: terminals that lack a character, readers that go away, full disks."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


class Lenient:
    r"""A text stream that takes everything; in all else it is the stream it was made of.

    Characters that the stream's encoding lacks are escaped as Python does (``\u732b``). A stream that
    cannot be written any more, as its reader or terminal is gone or its disk full, is let go.
    """

    def __init__(self, stream: Any, name: str, told: Any = None):
        """Takes a stream.

        Args:
            stream: to write to.
            name: what to call it.
            told: stream that is told when this one is let go; None: nobody is.
        """
        self._stream, self._name, self._told = stream, name, told
        self._gone = False

    def write(self, text: str) -> int:
        """Writes what can be written; returns the number of characters that were given."""
        if not self._gone:
            try:
                self._stream.write(text)
            except UnicodeError:
                encoding = getattr(self._stream, "encoding", None) or "ascii"
                self.write(text.encode(encoding, "backslashreplace").decode(encoding))
            except BlockingIOError:  # a pipe that is full for the moment: this text is lost
                pass
            except (OSError, ValueError) as error:  # a ValueError where it was closed
                self._let_go(error)
        return len(text)

    def flush(self) -> None:
        """Flushes, if the stream is still there."""
        if not self._gone:
            try:
                self._stream.flush()
            except BlockingIOError:
                pass
            except (OSError, ValueError) as error:
                self._let_go(error)

    def writelines(self, lines: Any) -> None:
        """Writes several texts."""
        for line in lines:
            self.write(line)

    def _let_go(self, error: Exception) -> None:
        self._gone = True
        # What is left in its buffer would fail again when Python ends, and change the exit code.
        with contextlib.suppress(Exception):
            number = self._stream.fileno()
            if number in (1, 2):
                with open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), number)
        if self._told is not None:
            reason = getattr(error, "strerror", None) or error
            self._told.write(f"{self._name} cannot be written ({reason}); going on without it\n")
            self._told.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lenient() -> Iterator[None]:
    """Standard output and standard error are ``Lenient`` inside; closed ones lead nowhere."""
    before = sys.stdout, sys.stderr
    if sys.stderr is None:
        sys.stderr = _nowhere(2)
    elif not isinstance(sys.stderr, Lenient):
        sys.stderr = Lenient(sys.stderr, "standard error")
    if sys.stdout is None:
        sys.stdout = _nowhere(1)
    elif not isinstance(sys.stdout, Lenient):
        sys.stdout = Lenient(sys.stdout, "standard output", sys.stderr)
    ours = sys.stdout, sys.stderr
    try:
        yield
    finally:
        for stream in ours:
            stream.flush()
        for name, own, old in zip(("stdout", "stderr"), ours, before, strict=True):
            if getattr(sys, name) is own:
                setattr(sys, name, old)
            if old is None:
                own.close()


def _nowhere(number: int) -> Any:
    """A stream that leads nowhere; it takes the closed number, which the next file would get otherwise."""
    stream = open(os.devnull, "w")
    try:
        os.fstat(number)
    except OSError:
        os.dup2(stream.fileno(), number)
    return stream
