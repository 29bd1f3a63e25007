"""What a device can do at most: published figures, given ones, or measured ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdet.preflight import chips
from jdet.types import ConfigError


class Peaks(NamedTuple):
    """Figures of one device; of CPUs, of all cores.

    Attributes:
        flops: operations a second of convolutions and products.
        bandwidth: of the main memory, bytes a second.
        links: bytes a second that leave the device for others; 0: unknown, left out of bounds.
        source: where the figures come from.
    """

    flops: float
    bandwidth: float
    links: float
    source: str


_SIDES = {"cpu": (2048, 64 * 2**20)}
_LARGE = (8192, 512 * 2**20)
"""Side of a product and numbers of a pass over memory: far above what caches hold."""
_TRIES = 5


def find(device: Any, precision: str, given: str = "", *, present: bool = True) -> Peaks:
    """The figures of a device at ``config.precision``: given, else published, else measured.

    Args:
        device: of JAX, present or of a topology.
        precision: "float32" or "bfloat16".
        given: operations and bytes a second, as ``--peaks`` has them; "": none.
        present: whether programs can run on it.

    Raises:
        ConfigError: the figures given are no two numbers, or there are none for a device that is not here.
    """
    if given:
        return parse(given)
    if chip := chips.find(device.device_kind):
        return Peaks(chip.peak(precision), chip.bandwidth, chip.links, chip.source)
    if not present:
        raise ConfigError(
            f"no published figures for {device.device_kind!r}, and it is not here to be measured; give "
            "operations and bytes a second, such as --peaks=2.3e15,7.4e12"
        )
    return measure(device, precision)


def parse(text: str) -> Peaks:
    """Figures such as ``2.3e15,7.4e12``: operations a second, then bytes a second.

    Raises:
        ConfigError: it is no two positive numbers.
    """
    try:
        flops, bandwidth = (float(part) for part in text.split(","))
    except ValueError:
        flops = bandwidth = 0.0
    if not (flops > 0 and bandwidth > 0):
        raise ConfigError(
            f"--peaks={text}: give operations and bytes a second, such as --peaks=2.3e15,7.4e12"
        )
    return Peaks(flops, bandwidth, 0.0, "as given on the command line")


def measure(device: Any, precision: str) -> Peaks:
    """Times a product of square matrices and a pass over memory; the best of some tries counts.

    Args:
        device: on which it is measured.
        precision: of the matrices.
    """
    side, count = _SIDES.get(device.platform, _LARGE)
    matrix = jax.device_put(np.full((side, side), 0.5, jnp.dtype(precision)), device)
    long = jax.device_put(np.zeros(count, np.float32), device)
    product = _best(jax.jit(jnp.dot), matrix, matrix)
    # Read once, written once, as an element-wise pass does.
    copy = _best(jax.jit(lambda x: x + 1), long)
    source = (
        f"measured: a product of {side}×{side} in {precision}, a pass over {4 * count >> 20} MiB"
    )
    return Peaks(2 * side**3 / product, 8 * count / copy, 0.0, source)


def _best(function: Callable[..., Any], *arguments: Any) -> float:
    """Seconds of the fastest call, after one that compiles."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return min(times)
