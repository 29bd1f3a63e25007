"""Upper bound of a program's speed on a chip: the roofline (Williams et al. 2009) with a third roof.

Arithmetic, traffic with the device's memory and traffic between devices each take some time at the
published peaks. If all three overlap perfectly, the longest one is the time of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from jdet.preflight.chips import Chip
from jdet.preflight.collectives import Collective

PASSES = {"all-reduce": 2}
"""How often an array has to travel; an all-reduce scatters sums, then gathers them."""


class Bound(NamedTuple):
    """Shortest times of one call, in seconds, and what they mean for throughput.

    Attributes:
        compute: arithmetic at the peak.
        memory: traffic with the device's memory at its bandwidth.
        interconnect: collectives, by the bandwidth of all links and the way to the farthest device.
        limit: name of the longest of the three.
        images_per_second: of one device, if the three overlap perfectly.
        images_per_second_serial: of one device, if nothing overlaps.
    """

    compute: float
    memory: float
    interconnect: float
    limit: str
    images_per_second: float
    images_per_second_serial: float


def bound(
    chip: Chip,
    *,
    flops: float,
    memory_bytes: float,
    collectives: Iterable[Collective],
    images: int,
    precision: str,
    hops: Callable[[int], int] = lambda group_size: 0,
) -> Bound:
    """The bound of a program.

    Args:
        chip: its figures.
        flops: floating-point operations of one device.
        memory_bytes: between one device and its memory.
        collectives: of the program.
        images: images of one device.
        precision: ``config.precision``.
        hops: from the size of a group to the links between its two farthest devices.
    """
    times = {
        "compute": flops / chip.peak(precision),
        "memory": memory_bytes / chip.bandwidth,
        "interconnect": sum(
            each.times * seconds(chip, each, hops(each.group_size)) for each in collectives
        ),
    }
    limit = max(times, key=lambda name: times[name])
    return Bound(
        **times,
        limit=limit,
        images_per_second=images / times[limit],
        images_per_second_serial=images / sum(times.values()),
    )


def seconds(chip: Chip, collective: Collective, hops: int) -> float:
    """Shortest time of one collective.

    Every device sends ``(n - 1) / n`` of the array, twice for an all-reduce, over all its links at
    once, and what it sends must reach the farthest device of its group.
    """
    n = collective.group_size
    sent = PASSES.get(collective.kind, 1) * collective.bytes * (n - 1) / n
    return sent / chip.links + hops * chip.hop
