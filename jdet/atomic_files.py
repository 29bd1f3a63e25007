"""Atomic file writes: a file is complete or absent, even if the program or the machine stops.

And what is full where there was no room to write.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replaces a file as a whole: readers see the old text or the new, and a crash leaves one."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Replaces a file as ``write_text`` does; several threads and processes may do so at a time."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Replaces a JSON file as ``write_text`` does; values are converted by ``plain``."""
    write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Numpy numbers as Python's, and what JSON cannot hold (nan, infinity) as None."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def sync(path: str | os.PathLike[str]) -> None:
    """Returns once a file, or the names in a folder, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(path: Path) -> None:
    """``sync`` of a folder with all that is in it, the folder itself last."""
    for inner in sorted(path.rglob("*"), reverse=True):
        sync(inner)
    sync(path)


FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a write for which there was no room."""


def what_is_full(error: OSError, folder: str | os.PathLike[str]) -> str:
    """Names what has no room left, and the remedy.

    The system says that a write found no room, but mostly not where: the folder of results, that of
    temporary files and the shared memory of processes are on file systems of their own.

    Args:
        error: with one of the numbers ``FULL``.
        folder: what was to be written to.

    Returns:
        A sentence without its full stop.
    """
    place = Path(error.filename).parent if error.filename else Path(folder)
    others = {
        Path(tempfile.gettempdir()): "make room there, or name another folder in TMPDIR",
        Path("/dev/shm"): "give the container more (docker run --shm-size=8g), or take fewer data "
        "workers (--config.data.workers=0 needs none of it)",
    }
    remedies = {place: "make room there"} | others
    for full in [place] if error.filename else remedies:
        if room := _room(full):
            return f"{full} is full ({room}): {remedies[full]}"
    if error.errno == errno.EDQUOT:
        return f"the quota of {place} is used up: {remedies[place]}"
    return f"{place} had no room for a moment ({os.strerror(error.errno or 0)}): {remedies[place]}"


def _room(place: Path) -> str:
    """How little is left in a folder; "" where there is room, or nothing is known."""
    try:
        held = os.statvfs(place)
    except OSError:
        return ""
    if held.f_files and not held.f_favail:
        return f"no file more, of {held.f_files:,}"
    left, size = held.f_bavail * held.f_frsize, held.f_blocks * held.f_frsize
    return f"{left >> 10} KiB left of {size >> 20} MiB" if size and left < 1 << 20 else ""
