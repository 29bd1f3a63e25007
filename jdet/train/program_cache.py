"""Compiled programs are kept in the user's cache, so that a command given again starts at once.

Compiling a training step takes from half a minute to several; JAX can read it back in a second. It is kept
in ``~/.cache/jdet/programs`` (``$XDG_CACHE_HOME/jdet/programs``), apart for each kind of CPU, since
programs are made for the instructions of one. ``JAX_COMPILATION_CACHE_DIR`` names another folder, and
``JAX_ENABLE_COMPILATION_CACHE=false`` keeps nothing.

Runs of several processes keep nothing of themselves: JAX lets process 0 alone write, so that it would find
its program where the others, with a folder of their own, compile theirs, and on GPUs compiling can wait
for all processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import platform
import sys
import zlib
from pathlib import Path

from jdet.parallel.worker import is_assigned

VARIABLE, SWITCH = "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"

MOST = 4 * 2**30
"""Bytes that the folder keeps; the programs that were not used for longest go."""

CHECKED = "checked"
"""File whose time of change is that of the last look for programs that are not whole."""

_ZSTD = b"\x28\xb5\x2f\xfd"  # first bytes of a frame (RFC 8878, section 3.1.1)


def keep() -> Path | None:
    """Has JAX keep what it compiles from now on; child processes do so too.

    Nothing changes where the user has set either variable, where JAX has a folder already, where this is
    one process of several, or where the folder cannot be written.

    Returns:
        The folder; None where nothing changed.
    """
    jax = sys.modules.get("jax")
    if VARIABLE in os.environ or SWITCH in os.environ or is_assigned():
        return None
    if jax is not None and jax.config.jax_compilation_cache_dir:
        return None
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_torn(folder)
        _shrink(folder, MOST)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    os.environ[VARIABLE] = str(folder)
    if jax is not None:  # it read the variable when it was imported
        jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def leave() -> None:
    """Takes back what ``keep`` told child processes; a folder that the user has named stays."""
    if os.environ.get(VARIABLE) == str(_folder()):
        del os.environ[VARIABLE]


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "jdet" / "programs" / _cpu()


def _remove_torn(folder: Path) -> None:
    """Removes programs of which a part is missing; each is looked at once, after it was written.

    JAX writes them in place, and never again once there is a file: without this, one that a kill or a full
    disk has cut short would be compiled anew at every start.
    """
    mark = folder / CHECKED
    last = mark.stat().st_mtime if mark.exists() else 0.0
    mark.touch()  # before the look: what is written meanwhile is for the next one
    for path in folder.glob("*-cache"):
        with contextlib.suppress(OSError):  # another process removed it
            if path.stat().st_mtime >= last and not _is_whole(path.read_bytes()):
                path.unlink()


def _is_whole(program: bytes) -> bool:
    """Whether what JAX wrote can be decompressed; True also where nothing here can."""
    if not program.startswith(_ZSTD):
        try:
            zlib.decompress(program)
        except zlib.error:
            return False
        return True
    for name in ("compression.zstd", "zstandard"):  # JAX takes the first that there is, else zlib
        with contextlib.suppress(ImportError):
            zstd = importlib.import_module(name)
            error = zstd.ZstdError
            try:
                zstd.decompress(program)
            except error:
                return False
            return True
    return True


def _shrink(folder: Path, most: int) -> None:
    """Removes files, also in folders within, until those that are left have ``most`` bytes together.

    First go those that were not read for longest; most file systems note it once a day.
    """
    files = []
    for inside, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(inside, name)
            with contextlib.suppress(OSError):  # another process removed it
                found = os.stat(path)
                used = max(found.st_atime, found.st_mtime)
                files.append((used, found.st_size, path))
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
