"""Costs of instructions added up, and what bounds each sum."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jdet.profile.costs import Part
from jdet.profile.peaks import Peaks
from jdet.profile.trace import UNKNOWN

NEITHER = "neither"
"""Bound of what takes far longer than its arithmetic and its traffic would at the peaks."""

FAR = 4.0
"""How many times as long that is."""


class Row(NamedTuple):
    """Instructions that have something in common.

    Attributes:
        name: what they have in common.
        count: how many instructions.
        seconds: of a step: measured, or else ``least``.
        share: of the step, 0 … 1.
        flops: operations of convolutions and products, of all devices together.
        bytes: moved between the devices and their main memory, of all devices together.
        least: seconds that they take at the peaks, each by its slowest resource.
        bound: "compute", "memory", "links" or ``NEITHER``.
    """

    name: str
    count: int
    seconds: float
    share: float
    flops: float
    bytes: float
    least: float
    bound: str

    @property
    def of_peak(self) -> float:
        """``least`` over ``seconds``: 1 is the roofline."""
        return self.least / self.seconds if self.seconds else 0.0


class Step(NamedTuple):
    """A program with what is known of its time.

    Attributes:
        parts: its instructions.
        seconds: measured ones by name; None: nothing was run, and bounds stand for times.
        whole: seconds of a step, idle time included.
        peaks: of a device, or of all where they share them.
        devices: that run the program, each its own part of the batch.
        shared: whether the peaks are those of all devices together, as those of a CPU are.
    """

    parts: Sequence[Part]
    seconds: Mapping[str, float] | None
    whole: float
    peaks: Peaks
    devices: int = 1
    shared: bool = False


def bounds(part: Part, peaks: Peaks, scale: int = 1) -> dict[str, float]:
    """Seconds that an instruction takes at each of the peaks, which ``scale`` devices share."""
    found = {
        "compute": scale * part.flops / peaks.flops,
        "memory": scale * part.bytes / peaks.bandwidth,
    }
    if peaks.links:
        found["links"] = part.sent / peaks.links
    return found


def step_of(
    parts: Sequence[Part],
    peaks: Peaks,
    seconds: Mapping[str, float] | None = None,
    wall: float = 0.0,
    *,
    devices: int = 1,
    shared: bool = False,
) -> Step:
    """A program as ``rows`` takes it; without measured times the least possible ones stand for them."""
    step = Step(parts, seconds, wall, peaks, devices, shared)
    if seconds is None:
        step = step._replace(whole=sum(max(_bounds(step, part).values()) for part in parts))
    return step


def _bounds(step: Step, part: Part) -> dict[str, float]:
    return bounds(part, step.peaks, step.devices if step.shared else 1)


def rows(step: Step, key: Callable[[Part], str]) -> list[Row]:
    """Instructions added up by a key, the longest first; with measured times, kernels of none and idle."""
    groups: dict[str, list[Part]] = defaultdict(list)
    for part in step.parts:
        groups[key(part)].append(part)
    found = [_row(step, name, group) for name, group in groups.items()]
    if step.seconds is not None:
        known = {part.name for part in step.parts}
        unknown = sum(value for name, value in step.seconds.items() if name not in known)
        if unknown:
            found.append(_plain(step, UNKNOWN, unknown))
        idle = step.whole - sum(step.seconds.values())
        if idle > 0:
            found.append(_plain(step, "idle", idle))
    return sorted(found, key=lambda row: -row.seconds)


def by_bound(rows: Sequence[Row]) -> dict[str, float]:
    """Share of the step by what bounds it."""
    found: dict[str, float] = defaultdict(float)
    for row in rows:
        found[row.bound] += row.share
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def top(path: str, depth: int) -> str:
    """The first parts of a module's path."""
    return "/".join(path.split("/")[:depth]) or "(no module)"


def _row(step: Step, name: str, group: Sequence[Part]) -> Row:
    least: dict[str, float] = defaultdict(float)
    for part in group:
        own = _bounds(step, part)
        limit = max(own, key=lambda resource: own[resource])
        least[limit] += own[limit]
    total = sum(least.values())
    seconds = total
    if step.seconds is not None:
        # Instructions of several computations may share a name, and then its time.
        seconds = sum(step.seconds.get(each, 0.0) for each in {part.name for part in group})
    bound = max(least, key=lambda resource: least[resource])
    if seconds > FAR * total:
        bound = NEITHER
    return Row(
        name,
        len(group),
        seconds,
        seconds / step.whole if step.whole else 0.0,
        step.devices * sum(part.flops for part in group),
        step.devices * sum(part.bytes for part in group),
        total,
        bound,
    )


def _plain(step: Step, name: str, seconds: float) -> Row:
    bound = "idle" if name == "idle" else NEITHER
    return Row(name, 0, seconds, seconds / step.whole, 0.0, 0.0, 0.0, bound)
