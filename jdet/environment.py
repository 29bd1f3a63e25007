"""Process settings that make XLA faster on Linux CPUs; they must stand before Python starts."""

from __future__ import annotations

import importlib.util
import os
import sys

CPU_SETTINGS = {
    # Keep freed memory instead of returning it to the kernel after every step: activations of
    # hundreds of megabytes otherwise cost a page fault per 4 KiB, every time.
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "1000000000",
}

_MARK = "JDET_ENVIRONMENT"


def tune() -> None:
    """Starts the program again, once, under ``CPU_SETTINGS`` where they matter.

    Nothing happens off Linux, where an accelerator's plugin is installed, where the user has set one
    of the variables, or with ``JDET_ENVIRONMENT=off``.
    """
    if not sys.platform.startswith("linux") or os.environ.get(_MARK) or _has_accelerator():
        return
    if any(name in os.environ for name in CPU_SETTINGS):
        return
    print("allocator tuned for CPU runs (JDET_ENVIRONMENT=off leaves it alone)", file=sys.stderr)
    sys.stderr.flush()
    os.environ.update(CPU_SETTINGS, **{_MARK: "cpu"})
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _has_accelerator() -> bool:
    """Whether JAX would find something better than a CPU; asks no backend, which would start it."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms != "cpu"
    plugins = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin")
    return any(importlib.util.find_spec(name) for name in plugins)
