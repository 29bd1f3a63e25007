"""Atomic file writes: a file is complete or absent, even if the program or the machine stops."""

from __future__ import annotations

import json
import math
import os
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
