"""Topologies by name: devices to compile for, present or not.

``v5e:16x16`` is a slice of TPUs as libtpu describes it, ``cpu:8`` this machine's processor counted as
eight devices, ``gpu`` or ``gpu:4`` the GPUs of this machine.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from jdet.config import nearest
from jdet.parallel.device_memory import host_memory
from jdet.preflight import chips
from jdet.types import ConfigError

FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBIC = (
    "2x2x1",
    "2x2x2",
    "2x2x4",
    "2x4x4",
    "4x4x4",
    "4x4x8",
    "4x8x8",
    "8x8x8",
    "8x8x16",
    "8x16x16",
)
SLICES = {"v4": CUBIC, "v5e": FLAT, "v5p": CUBIC, "v6e": FLAT, "tpu7x": CUBIC}
"""Generations and the slices of them that are offered; libtpu describes others too."""

MEGACORE = ("v4",)
"""Generations whose two cores count as one device only when asked for; training runs them so."""

_QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",  # there is no metadata server to ask
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # describing takes no device away from anybody
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
_CPU = re.compile(r"cpu:(\d+)")
_GPU = re.compile(r"gpu(?::(\d+))?")
_TPU = re.compile(r"(\w+):(\d+(?:x\d+)+)")


class Topology(NamedTuple):
    """Devices to compile for.

    Attributes:
        name: as given.
        count: how many devices.
        kind: ``jax.Device.device_kind``.
        memory: bytes of one device; of a CPU its share of the machine's.
        chip: published figures; None where there are none.
        hops: by size of a group of neighbours in the mesh, links between its two farthest devices.
    """

    name: str
    count: int
    kind: str
    memory: float
    chip: chips.Chip | None
    hops: dict[int, int]


def prepare(name: str) -> None:
    """Settings of this process for a topology; must come before JAX starts its backends."""
    if _GPU.fullmatch(name):
        return
    # The devices of a TPU topology are for compiling alone: no TPU is looked for, and what was compiled for
    # one that is not here cannot be read back.
    jax.config.update("jax_platforms", "cpu")
    if _TPU.fullmatch(name):
        jax.config.update("jax_enable_compilation_cache", False)
    if found := _CPU.fullmatch(name):
        jax.config.update("jax_num_cpu_devices", int(found.group(1)))


def devices(name: str) -> list[Any]:
    """The devices of a topology, in the order of a run's mesh.

    Raises:
        ConfigError: there is no such topology; the message lists those there are.
    """
    if found := _CPU.fullmatch(name):
        wanted, available = int(found.group(1)), jax.devices("cpu")
        if not 1 <= wanted <= len(available):
            raise ConfigError(
                f"topology {name}: this process counts {len(available)} CPU device(s); set "
                f"JAX_NUM_CPU_DEVICES={wanted} before it starts"
            )
        return available[:wanted]
    if found := _GPU.fullmatch(name):
        return _gpus(name, found.group(1))
    kind = name.partition(":")[0]
    if kind in ("cpu", "gpu"):
        raise ConfigError(f"topology {name}: N in {kind}:N must be a number, such as {kind}:2")
    if not importlib.util.find_spec("libtpu"):
        raise ConfigError(
            f"topology {name} needs libtpu, the compiler for TPUs, which is not installed: "
            "pip install --editable '.[tpu]' in the clone; cpu:N works without"
        )
    try:
        return _describe(name)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        why = str(error).split(": ", 1)[-1].split("\n")[0]
        offered = [f"{generation}:{shape}" for generation, shape in _offered()]
        listing = "; ".join(
            f"{generation}: {' '.join(s for g, s in _offered() if g == generation)}"
            for generation in dict(_offered())
        )
        version = importlib.metadata.version("libtpu")
        raise ConfigError(
            f"topology {name!r} does not exist{nearest(name, offered)} (libtpu {version}: {why}); "
            f"there are {listing}; and cpu:N, gpu, gpu:N"
        ) from None


def look(name: str) -> Topology:
    """Properties of a topology that are known before anything is compiled.

    Raises:
        ConfigError: as in ``devices``.
    """
    if found := _CPU.fullmatch(name):  # without starting a backend
        count = int(found.group(1))
        if not 1 <= count <= 4096:
            raise ConfigError(f"topology {name}: N in cpu:N must be in 1 … 4096")
        return Topology(name, count, "cpu", host_memory() / count, None, {})
    found = devices(name)
    kind = found[0].device_kind
    return Topology(name, len(found), kind, memory(found[0]), chips.find(kind), _hops(name, found))


def memory(device: Any) -> float:
    """Memory of a device in bytes: the limit of its allocator if it is present, else the published size.

    A CPU's is the machine's, shared by the devices it counts as; 0 where nothing is known.
    """
    if device.platform == "cpu":
        return host_memory() / len(jax.local_devices(backend="cpu"))
    chip = chips.find(device.device_kind)
    try:
        stats = device.memory_stats() or {}
    except (jax.errors.JaxRuntimeError, NotImplementedError):  # a device to compile for alone
        stats = {}
    return float(stats.get("bytes_limit", chip.memory if chip else 0))


def wrapped(generation: str, shape: Sequence[int]) -> tuple[bool, ...]:
    """Which of the three axes of a slice are closed to a ring (Cloud TPU documentation).

    Two-dimensional generations close axes of 16, three-dimensional ones all axes of whole cubes of 4.
    """
    sides = (*shape, *[1] * (3 - len(shape)))
    if SLICES.get(generation) == FLAT:
        return tuple(side == 16 for side in sides)
    return (all(side % 4 == 0 for side in sides),) * 3


def quiet() -> None:
    """Environment in which libtpu neither looks for TPUs nor complains that there are none."""
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)


def _describe(name: str) -> list[Any]:
    from jax.experimental import topologies

    found = _TPU.fullmatch(name)
    if not found:
        raise ValueError("a name is a generation and a shape, such as v5e:4x4")
    generation, shape = found.group(1), tuple(map(int, found.group(2).split("x")))
    options: dict[str, Any] = {"wrap": wrapped(generation, shape)}
    if set(shape) == {1}:
        options["chips_per_host_bounds"] = (1, 1, 1)
    if generation in MEGACORE:
        options["chip_config_name"] = "megacore"
    quiet()
    return list(topologies.get_topology_desc(name, "tpu", **options).devices)


@functools.cache
def _offered() -> list[tuple[str, str]]:
    """Generations and slices of ``SLICES`` that this libtpu describes."""
    known = []
    for generation, shapes in SLICES.items():
        for shape in shapes:
            try:
                _describe(f"{generation}:{shape}")
            except jax.errors.JaxRuntimeError:
                continue
            known.append((generation, shape))
    return known


def _gpus(name: str, wanted: str | None) -> list[Any]:
    quiet()
    try:
        available = jax.devices("gpu")
    except RuntimeError:
        available = []
    count = int(wanted) if wanted else len(available)
    if not 1 <= count <= len(available):
        raise ConfigError(
            f"topology {name}: JAX sees {len(available)} GPU(s) here; GPUs must be present "
            "(and JAX for them: pip install --editable '.[cuda]' in the clone), TPUs and cpu:N need not be"
        )
    return available[:count]


def _hops(name: str, devices: Sequence[Any]) -> dict[int, int]:
    """Links between the two farthest of the first n devices, for every n that divides them all."""
    found = _TPU.fullmatch(name)
    if not found:
        return {}
    shape = tuple(map(int, found.group(2).split("x")))
    sides = (*shape, *[1] * (3 - len(shape)))
    rings = wrapped(found.group(1), shape)
    places = [tuple(device.coords) for device in devices]

    def apart(one, other) -> int:
        ways = [abs(a - b) for a, b in zip(one, other)]
        return sum(min(way, side - way) if r else way for way, side, r in zip(ways, sides, rings))

    counts = [n for n in range(1, len(places) + 1) if len(places) % n == 0]
    return {n: max(apart(places[0], place) for place in places[:n]) for n in counts}
