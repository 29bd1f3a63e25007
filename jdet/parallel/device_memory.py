"""Memory of devices: what is free on them, and what a compiled program takes."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax


def host_memory() -> float:
    """Bytes of this machine's memory."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def free_memory(devices: Sequence[Any]) -> int | None:
    """Bytes free on each of these devices, as far as they are this process's; None if unknown."""
    local = [device for device in devices if device.process_index == jax.process_index()]
    stats = [device.memory_stats() for device in local]
    if stats and all(one and "bytes_limit" in one for one in stats):
        return min(one["bytes_limit"] - one.get("bytes_in_use", 0) for one in stats)
    if not local or local[0].platform != "cpu":
        return None
    try:  # the devices of a CPU share the host's memory
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return free[0] // len(local) if free else None


def peak_memory(devices: Iterable[Any]) -> int:
    """Most bytes that any of these devices held so far, or this process, where they do not say.

    Those of other processes are left out. CPUs do not say; there the process is counted with all it holds.
    """
    local = [device for device in devices if device.process_index == jax.process_index()]
    stats = [device.memory_stats() or {} for device in local]
    if peaks := [one["peak_bytes_in_use"] for one in stats if "peak_bytes_in_use" in one]:
        return max(peaks)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # elsewhere in KiB


def needed_memory(program: Any, held: Any) -> int | None:
    """Bytes that a compiled program takes on each device; None where the backend does not say.

    Args:
        program: of type ``jax.stages.Compiled``.
        held: arguments that are on the device anyway, such as the variables; they are not counted.
    """
    analysis = program.memory_analysis()
    if analysis is None:
        return None
    there = sum(x.nbytes for x in jax.tree.leaves(held))
    inputs = max(analysis.argument_size_in_bytes - there, 0)
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes + inputs
