"""Messages between processes: JSON objects, one a line, over a connected socket."""

from __future__ import annotations

import json
import select
import socket
import time
from typing import Any

BEAT_SECONDS = 2.0
"""How often both ends of a connection say that they live."""

_LONGEST = 1 << 20  # bytes of a line; nothing of ours comes near


class Link:
    """One end of a connection.

    Attributes:
        heard: when something came last, by ``time.monotonic``.
        closed: the other end is gone, or sent what is no message.
    """

    def __init__(self, connection: socket.socket):
        """Takes the socket over."""
        connection.settimeout(5.0)
        self._socket = connection
        self._text = b""
        self._beaten = self.heard = time.monotonic()
        self.closed = False

    def fileno(self) -> int:
        """For ``select``."""
        return self._socket.fileno()

    def send(self, **message: Any) -> None:
        """Sends a message; does nothing where the other end is gone."""
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.closed = True

    def beat(self) -> None:
        """Says that this end lives, now and then."""
        if time.monotonic() - self._beaten > BEAT_SECONDS:
            self._beaten = time.monotonic()
            self.send()

    def receive(self, seconds: float = 0.0) -> list[dict[str, Any]]:
        """What came within a time; signs of life are not among it."""
        if self.closed or not select.select([self._socket], [], [], seconds)[0]:
            return []
        try:
            read = self._socket.recv(1 << 16)
        except OSError:
            read = b""
        if not read:
            self.closed = True
            return []
        self.heard = time.monotonic()
        *lines, self._text = (self._text + read).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except (ValueError, RecursionError):  # the latter of brackets in brackets
            messages = None
        if messages is None or len(self._text) > _LONGEST or not all(map(_is_message, messages)):
            self.closed = True
            return []
        return [message for message in messages if message]

    def silence(self) -> float:
        """Seconds since something came last."""
        return time.monotonic() - self.heard

    def close(self) -> None:
        """Closes the connection."""
        self.closed = True
        self._socket.close()


def _is_message(value: Any) -> bool:
    return isinstance(value, dict)
