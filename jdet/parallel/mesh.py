"""Devices as a mesh of two axes, and how a batch is split over it.

The mesh has axes ``("group", "member")`` and the batch is split over both: ``member`` are the
devices that share BatchNorm statistics, ``group`` counts such teams. Consecutive devices hold
consecutive images, so a team sees the same images whatever the number of devices.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from absl import logging
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from jdet.types import Batch, ConfigError

AXES = ("group", "member")


def split_cpu(config: ConfigDict) -> None:
    """Uses the CPU as ``parallel.cpu_devices`` devices, each with its share of the batch.

    XLA runs the small convolutions of small networks on one core each; two devices run two of them
    at once. With ``sync_batch`` norms the training is the same but for the last digits. Other
    platforms are not touched. Must come before JAX starts its backends; where it has, the devices
    stay as they are, and a warning says so.
    """
    count = config.parallel.cpu_devices
    if count == 1:
        return
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        if jax.default_backend() == "cpu" and jax.local_device_count() != count:
            logging.warning(
                "parallel.cpu_devices=%d comes too late, JAX already runs with %d device(s); "
                "set the environment variable JAX_NUM_CPU_DEVICES=%d for full speed",
                count,
                jax.local_device_count(),
                count,
            )


MOST_CPU_DEVICES = 64
"""What ``parallel.cpu_devices`` can be."""


def pick_devices(config: ConfigDict) -> list[jax.Device]:
    """``parallel.devices`` devices, equally many of each process; 0 means all.

    Those of a process stand together, in the order of the processes, whatever the topology numbers
    them by: a process then holds consecutive images of the batch.

    Raises:
        ConfigError: there are not as many, or the processes would not have equally many.
    """
    wanted, processes = config.parallel.devices, jax.process_count()
    available = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if not 0 <= wanted <= len(available):
        platform = available[0].platform
        more = ""
        if platform == "cpu" and processes == 1 and 0 < wanted <= MOST_CPU_DEVICES:
            more = f", or use the CPU as {wanted} with parallel.cpu_devices={wanted}"
        raise ConfigError(
            f"parallel.devices={wanted}, but there are {len(available)} {platform} device(s); use 0 for "
            f"all of them{more}"
        )
    if processes == 1:
        return available[: wanted or None]
    each = (wanted or len(available)) // processes
    own = [
        [device for device in available if device.process_index == index][:each]
        for index in range(processes)
    ]
    if (wanted or len(available)) % processes or any(len(devices) < each for devices in own):
        raise ConfigError(
            f"parallel.devices={wanted}, but every one of the {processes} processes must have equally "
            f"many; of the {len(available)} devices they have "
            f"{', '.join(str(sum(d.process_index == i for d in available)) for i in range(processes))}"
        )
    return [device for devices in own for device in devices]


def split_batch(config: ConfigDict, devices: int) -> int:
    """Number of images that each of ``devices`` devices processes at a time while training.

    Raises:
        ConfigError: the batch does not divide by devices and micro-batches, or is smaller than that.
    """
    batch_size, accumulation = config.train.batch_size, config.train.accumulation
    parts = devices * accumulation
    if batch_size % parts == 0:
        return batch_size // parts
    problem, remedy = "", f"take a multiple of {parts}"
    if batch_size < parts:
        problem = " and leaves some without an image"
        remedy += ", or fewer devices (parallel.devices)" if devices > 1 else ""
        remedy += ", or a smaller train.accumulation" if accumulation > 1 else ""
    raise ConfigError(
        f"train.batch_size={batch_size} does not divide by {devices} device(s) × "
        f"train.accumulation={accumulation}{problem}; {remedy}"
    )


def bn_layout(micro_batch: int, devices: int, group_size: int) -> tuple[int, int]:
    """Arranges devices in teams that share BatchNorm statistics.

    Args:
        micro_batch: images that a device processes at a time.
        devices: how many.
        group_size: ``parallel.bn_group_size``, images that share statistics; 0: all.

    Returns:
        Number of teams and devices per team. A team is one device where ``group_size`` is smaller
        than its images: the norm layer then splits them further.

    Raises:
        ConfigError: the group size is neither a divisor of the images of a device nor those of a
            number of devices that divides all; the message lists the sizes that are.
    """
    if group_size == 0:
        return 1, devices
    fitting = bn_group_sizes(micro_batch, devices)
    if group_size not in fitting:
        raise ConfigError(
            f"parallel.bn_group_size={group_size} does not fit {devices} device(s) that see "
            f"{micro_batch} images at a time each; {', '.join(map(str, fitting))} do (0: all "
            f"{fitting[-1]})"
        )
    members = max(1, group_size // micro_batch)
    return devices // members, members


def bn_group_sizes(micro_batch: int, devices: int) -> list[int]:
    """The sizes of BatchNorm groups that ``bn_layout`` accepts, in images, rising."""
    within = {size for size in range(1, micro_batch + 1) if micro_batch % size == 0}
    across = {micro_batch * n for n in range(1, devices + 1) if devices % n == 0}
    return sorted(within | across)


def make_mesh(
    config: ConfigDict, *, devices: Sequence[jax.Device] | None = None, training: bool = True
) -> Mesh:
    """The mesh of a run, axes ``("group", "member")``.

    The devices of a process follow one another, as its rows of a batch do.

    Args:
        config: complete config.
        devices: to use; None: those the config picks.
        training: False: no batch norm will reduce over it, and the devices need not suit
            ``train.batch_size`` and ``parallel.bn_group_size``.

    Raises:
        ConfigError: they do not, or there are not so many devices.
    """
    devices = pick_devices(config) if devices is None else devices
    devices = sorted(devices, key=lambda device: device.process_index)
    layout = 1, len(devices)
    if training:
        micro_batch = split_batch(config, len(devices))
        layout = bn_layout(micro_batch, len(devices), config.parallel.bn_group_size)
    return Mesh(np.asarray(devices).reshape(layout), AXES, axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds all of it: parameters, statistics, optimiser state."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over all devices."""
    return NamedSharding(mesh, P(AXES))


def split_axes(mesh: Mesh) -> tuple[str, ...]:
    """The axes along which devices have different images: both; of one device none.

    A batch that goes into ``shard_map`` as split over these, ``P(split_axes(mesh))``, is summed over what
    there is to sum over: XLA does not take out a sum over one device on CPUs, and copies what is in it.
    """
    return AXES if mesh.size > 1 else ()


def to_global(batch: Batch, mesh: Mesh) -> Batch:
    """Puts this process's numpy rows of a batch on its devices, as part of one global batch.

    Args:
        batch: arrays [B / processes, …].
        mesh: of the run.

    Returns:
        The same record with global arrays [B, …], split over all devices.
    """
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
