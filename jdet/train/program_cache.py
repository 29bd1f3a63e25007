"""Compiled programs are kept in the user's cache, so that a command given again starts at once.

Compiling a training step takes from half a minute to several; JAX can read it back in a second. It is kept
in ``~/.cache/jdet/programs`` (``$XDG_CACHE_HOME/jdet/programs``), apart for each kind of CPU, since
programs are made for the instructions of one. ``JAX_COMPILATION_CACHE_DIR`` names another folder, and
``JAX_ENABLE_COMPILATION_CACHE=false`` keeps nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
from pathlib import Path

VARIABLE, SWITCH = "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"

MOST = 4 * 2**30
"""Bytes that the folder keeps; the programs that were written first go."""


def keep() -> Path | None:
    """Has JAX keep what it compiles from now on; child processes do so too.

    Nothing changes where the user has set either variable, where JAX has a folder already, or where the
    folder cannot be written.

    Returns:
        The folder; None where nothing changed.
    """
    jax = sys.modules.get("jax")
    if VARIABLE in os.environ or SWITCH in os.environ:
        return None
    if jax is not None and jax.config.jax_compilation_cache_dir:
        return None
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(base) / "jdet" / "programs" / _cpu()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _shrink(folder, MOST)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    os.environ[VARIABLE] = str(folder)
    if jax is not None:  # it read the variable when it was imported
        jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def _shrink(folder: Path, most: int) -> None:
    """Removes the oldest files of a folder until those that are left have ``most`` bytes together."""
    files = []
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # another process removed it
            found = entry.stat()
            files.append((found.st_mtime, found.st_size, entry.path))
    spare = sum(size for _, size, _ in files) - most
    for _, size, path in sorted(files):
        if spare <= 0:
            return
        with contextlib.suppress(OSError):
            os.remove(path)
        spare -= size


def _cpu() -> str:
    """A name of the instructions that this machine's CPU has."""
    about = platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            about += next(line for line in lines if line.startswith(("flags", "Features")))
    return hashlib.sha256(about.encode()).hexdigest()[:16]
