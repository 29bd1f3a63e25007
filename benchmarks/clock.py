"""The stopwatch of both sides. It imports the standard library only, so that the peer's Python can use it.

A sample counts if other processes took less than a twentieth of the machine during it; if too few samples
remain, all count. ``others`` is the median share of other processes, which is taken as 0 outside Linux.
"""

import os
import resource
import statistics
import sys
import time
from typing import NamedTuple

LEAST = 150.0  # milliseconds of a sample; several shorter calls are timed together
QUIET = 0.05


class Sample(NamedTuple):
    """Milliseconds and the process's own processor milliseconds per call; share of other processes."""

    ms: float
    cpu_ms: float
    others: float


def busy_seconds():
    """Processor time that the whole machine has spent working; 0 if it is not known."""
    try:
        with open("/proc/stat") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
        return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def sample(call, finish, calls=1):
    """One sample of ``calls`` calls; ``finish`` waits until all that they started is done."""
    machine, own, start = busy_seconds(), time.process_time(), time.perf_counter()
    for _ in range(calls):
        call()
    finish()
    wall, own = time.perf_counter() - start, time.process_time() - own
    others = max(0.0, busy_seconds() - machine - own) / (wall * (os.cpu_count() or 1))
    return Sample(1000 * wall / calls, 1000 * own / calls, others)


def samples(call, finish, count, warmup=2):
    """``count`` samples after ``warmup`` calls; the first one decides how many calls make a sample."""
    for _ in range(warmup):
        call()
        finish()
    first = sample(call, finish)
    calls = max(1, round(LEAST / max(first.ms, 1e-3)))
    found = [first] if calls == 1 else []
    return found + [sample(call, finish, calls) for _ in range(count - len(found))]


def summary(found):
    """Median, minimum, processor time, and how many samples were undisturbed."""
    quiet = [one for one in found if one[2] < QUIET]
    times, own, _ = zip(*(quiet if len(quiet) >= 3 else found))
    return {
        "ms": round(statistics.median(times), 2),
        "min_ms": round(min(times), 2),
        "cpu_ms": round(statistics.median(own), 2),
        "quiet": f"{len(quiet)}/{len(found)}",
        "others": round(statistics.median(share for *_, share in found), 3),
    }


def peak_rss_mib():
    """Largest resident memory of this process so far, MiB."""
    try:
        # The system's ru_maxrss begins with that of the process this one was started from.
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) // 2**10
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // 2 ** (20 if sys.platform == "darwin" else 10)
