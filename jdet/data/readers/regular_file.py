"""Opens what label files name: files, and nothing that never ends or waits for somebody to write."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file to read its bytes.

    A label file may name anything that its author likes: a device such as ``/dev/zero`` has no end, and the
    opening of a pipe waits.

    Raises:
        OSError: it cannot be opened, or is a folder, a device, a pipe or a socket.
    """
    flags, quick = os.O_RDONLY | getattr(os, "O_BINARY", 0), getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags | quick)
    except BlockingIOError:  # a file server holds a lease on it, or it has to be fetched from tape
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise
        handle = os.open(path, flags)
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "a device, pipe or socket, and no file", path)
        if quick:
            os.set_blocking(handle, True)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise
