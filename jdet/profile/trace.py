"""Time of every instruction of a program, from a trace of steps that really run.

JAX's profiler records when each instruction ran: on CPUs by thread, on GPUs by stream, on TPUs by core.
Instructions may run beside one another, and loops contain others. Every moment is shared out equally
among the innermost instructions that run then, so that the times of all instructions and the idle time
add up to the time of the steps.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.profiler import ProfileData

UNKNOWN = "(not of the program)"
"""Stands for kernels of a device that belong to no instruction, such as copies to the host."""


class Event(NamedTuple):
    """An instruction that ran on one thread, stream or core.

    Attributes:
        name: of the instruction.
        start: nanoseconds.
        end: nanoseconds.
    """

    name: str
    start: float
    end: float


class Traced(NamedTuple):
    """What a trace of some steps says, seconds of one step.

    Attributes:
        seconds: of every instruction that ran, by name; averaged over devices, summing to the busy time.
        wall: of a step while it was traced.
        cores: of the CPU that were busy on average.
    """

    seconds: dict[str, float]
    wall: float
    cores: float

    @property
    def idle(self) -> float:
        """Seconds of a step in which no instruction ran."""
        return max(0.0, self.wall - sum(self.seconds.values()))


def capture(step: Callable[[], Any], steps: int, names: Collection[str]) -> Traced:
    """Runs steps under the profiler.

    Args:
        step: starts one step and returns what to wait for; compiled and warmed up.
        steps: how many.
        names: of the program's instructions.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        jax.profiler.start_trace(folder, profiler_options=options)
        start, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready([step() for _ in range(steps)])
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        jax.profiler.stop_trace()
        data = [ProfileData.from_file(str(path)) for path in Path(folder).rglob("*.xplane.pb")]
        seconds = by_instruction(data[0], names) if data else {}
    per_step = {name: value / steps for name, value in seconds.items()}
    return Traced(per_step, wall / steps, cpu / wall)


def by_instruction(data: ProfileData, names: Collection[str]) -> dict[str, float]:
    """Seconds of every instruction in a trace, averaged over the devices in it.

    Args:
        data: the trace.
        names: of the program's instructions; on a device all else that ran counts as ``UNKNOWN``, on a
            CPU, whose threads do other things too, nothing else counts.
    """
    known = frozenset(names)
    planes = {plane.name: plane for plane in data.planes}
    # The host also notes what it starts on devices.
    own = [name for name in planes if name.startswith("/device:")] or ["/host:CPU"]
    found = [_lines(planes[name], known) for name in own if name in planes]
    devices = [lines for lines in found if lines]
    total: dict[str, float] = defaultdict(float)
    for lines in devices:
        for name, seconds in share(lines).items():
            total[name] += seconds / len(devices)
    return dict(total)


def share(lines: Iterable[Sequence[Event]]) -> dict[str, float]:
    """Seconds by name where every moment is shared out among the innermost events that run then.

    Args:
        lines: events of one thread, stream or core each; on a line they are nested or apart.
    """
    changes: list[tuple[float, int, str]] = []
    for line in lines:
        for event in _innermost(line):
            changes += [(event.start, 1, event.name), (event.end, -1, event.name)]
    changes.sort(key=lambda change: change[:2])
    running: dict[str, int] = defaultdict(int)
    total: dict[str, float] = defaultdict(float)
    count, before = 0, 0.0
    for moment, change, name in changes:
        if count and moment > before:
            for each, times in running.items():
                total[each] += (moment - before) * times / count * 1e-9
        running[name] += change
        if not running[name]:
            del running[name]
        count, before = count + change, moment
    return dict(total)


def _innermost(line: Sequence[Event]) -> list[Event]:
    """Events of a line cut where others run inside of them."""
    found: list[Event] = []
    stack: list[Event] = []

    def close(until: float) -> None:
        while stack and stack[-1].end <= until:
            event = stack.pop()
            found.append(event)
            if stack:  # the rest of what contains it
                stack[-1] = stack[-1]._replace(start=max(stack[-1].start, event.end))

    for event in sorted(line, key=lambda each: (each.start, -each.end)):
        close(event.start)
        if stack:
            outer = stack[-1]
            found.append(outer._replace(end=event.start))
            event = event._replace(end=min(event.end, outer.end))
        stack.append(event)
    close(float("inf"))
    return [event for event in found if event.end > event.start]


def _lines(plane: Any, known: frozenset[str]) -> list[list[Event]]:
    """Events of a device, or of the host where that is a CPU, by line."""
    device = plane.name.startswith("/device:")
    lines = list(plane.lines)
    if device:
        # Others of these lines repeat the same time by module or by step.
        own = [line for line in lines if line.name == "XLA Ops"]
        lines = own or [line for line in lines if line.name.startswith("Stream")]
    found = [[_event(event, known, device) for event in line.events] for line in lines]
    return [kept for events in found if (kept := [event for event in events if event])]


def _event(event: Any, known: frozenset[str], device: bool) -> Event | None:
    name = event.name.split(" = ")[0].lstrip("%")
    if device and name not in known:
        stats = dict(event.stats)
        name = str(stats.get("hlo_op", name))
    if name not in known:
        if not device:
            return None
        name = UNKNOWN
    return Event(name, event.start_ns, event.end_ns)
