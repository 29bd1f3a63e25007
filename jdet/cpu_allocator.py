"""Process settings that make XLA faster on Linux CPUs; they must be set before Python starts."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from pathlib import Path

CPU_SETTINGS = {
    # Huge pages for large allocations: XLA maps its hundreds of megabytes of activations afresh every
    # step, which costs a page fault per 4 KiB otherwise (240,000 a step down to 1,000, measured).
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}

_MARK = "JDET_ENVIRONMENT"


def tune() -> None:
    """Starts the program again, once, under ``CPU_SETTINGS`` where they matter.

    Nothing happens off Linux, where an accelerator's plugin is installed (libtpu: where there is a
    TPU too), where the user has set the variable, or with ``JDET_ENVIRONMENT=off``.
    """
    if not sys.platform.startswith("linux") or os.environ.get(_MARK) or _has_accelerator():
        return
    if any(name in os.environ for name in CPU_SETTINGS):
        return
    with contextlib.suppress(OSError):  # of a reader that is gone
        if sys.stderr is not None:
            note = "allocator tuned for CPU runs (JDET_ENVIRONMENT=off leaves it alone)"
            print(note, file=sys.stderr, flush=True)
    os.environ.update(CPU_SETTINGS, **{_MARK: "cpu"})
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _has_accelerator() -> bool:
    """Whether JAX would find something better than a CPU; asks no backend, which would start it."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms != "cpu"
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin")
    if any(importlib.util.find_spec(name) for name in plugins):
        return True
    # libtpu also compiles for TPUs that are elsewhere (jdet.preflight).
    here = [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(here) and importlib.util.find_spec("libtpu") is not None
