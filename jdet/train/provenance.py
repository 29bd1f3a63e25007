"""What a run was made with: versions, machine and code, from which step on."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jdet import __version__

PACKAGE = Path(__file__).resolve().parents[1]
"""Folder of jdet's code."""

LIBRARIES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy"),
    *("opencv-python-headless", "grain", "pycocotools", "hotcoco"),
)
"""Distributions whose code takes part in a training or an evaluation."""


def versions() -> dict[str, str]:
    """Versions of jdet, JAX and Python, and the commit of jdet's checkout where it is one."""
    found = {
        "jdet": __version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    revision = commit(PACKAGE.parent)
    return {**found, "commit": revision} if revision else found


def libraries() -> dict[str, str]:
    """Versions of Python and of ``LIBRARIES``, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What decides about the last digits besides code and libraries: processor, backend and its flags."""
    cores = getattr(os, "sched_getaffinity", None)
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(cores(0)) if cores else os.cpu_count(),
        "backend": jax.default_backend(),
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


@functools.cache
def _processor() -> str:
    """The model of the processor, as Linux names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def code_files(folder: Path = PACKAGE) -> dict[str, str]:
    """SHA-256 of every file of code in a folder, by its path in it, without caches and hidden files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(p.startswith((".", "__pycache__")) for p in name.parts):
            found[name.as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def digest_of(files: Mapping[str, str]) -> str:
    """One SHA-256 of files by name with the digest of each, whatever their order."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


@functools.cache
def code() -> str:
    """The digest of jdet's code as this process has it."""
    return digest_of(code_files())


def stretches(
    before: Sequence[Mapping[str, Any]], start: int, made_with: Mapping[str, str], **facts: Any
) -> list[dict[str, Any]]:
    """With what each part of a run was trained, once it goes on from a step.

    Args:
        before: what was known so far.
        start: first step that is trained now. What was trained from there on before is void.
        made_with: what ``versions`` gave.
        **facts: of the mesh, such as ``devices``.

    Returns:
        Stretches with ``first``, the step that each begins at, oldest first; one that does not differ from
        the one before it is a part of that.
    """
    kept = [dict(each) for each in before if each["first"] < start]
    now = {
        "code": code(),
        "versions": {**made_with, **libraries()},
        "machine": {**machine(), **facts},
    }
    same = kept and {**kept[-1], "first": 0} == {**now, "first": 0}
    return kept if same else [*kept, {"first": start, **now}]


def commit(folder: Path) -> str:
    """The commit of a checkout, with a + behind it where tracked files were changed since.

    Args:
        folder: the root of the checkout.

    Returns:
        Twelve digits at least; "" where the folder is no checkout, or git does not say.
    """
    if not (folder / ".git").exists():  # installed; whatever lies above is somebody else's
        return ""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
