"""Which process of how many this one is: from flags, a list of hosts, or the cluster's environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jdet.types import ConfigError

PORT = 8476
"""Where process 0 listens by default."""


class ProcessSpec(NamedTuple):
    """One process among those of a run.

    Attributes:
        coordinator: ``host:port`` at which process 0 listens for the others.
        count: processes of the run.
        index: of this one, 0 … count-1.
        local_device_ids: accelerators of this host that are this process's; None: all of them.
    """

    coordinator: str
    count: int
    index: int
    local_device_ids: tuple[int, ...] | None = None


def find(
    hosts: str = "",
    coordinator: str = "",
    num_processes: int | None = None,
    process_id: int | None = None,
) -> ProcessSpec | None:
    """The place of this process, or None where it is to work alone.

    Args:
        hosts: "auto": what the environment says (TPU pod, SLURM, Open MPI, Kubernetes); names or
            addresses of all hosts, one process each, the first of them process 0, separated by
            commas; "@file": such a list, one a line; "": nothing.
        coordinator: ``host:port`` or ``host`` of process 0.
        num_processes: of the run.
        process_id: of this process. Where ``hosts`` is a list, it is found by this machine's names.

    Raises:
        ConfigError: the flags do not say it, contradict each other, or nothing is there to detect.
    """
    if hosts == "auto":
        return _detect(coordinator, num_processes, process_id)
    if hosts:
        return _listed(_read(hosts), coordinator, num_processes, process_id)
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in given.items() if value in ("", None)]
    if len(missing) == 3 or num_processes == 1:
        return None
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} must be given too: --coordinator=HOST:PORT of process 0, "
            "--num_processes of all and --process_id of this one; or --hosts=auto or a list"
        )
    return _checked(_address(coordinator), num_processes, process_id)


def _listed(
    names: Sequence[str], coordinator: str, count: int | None, index: int | None
) -> ProcessSpec | None:
    """The place among hosts with one process each; a host may be listed more than once."""
    if count not in (None, len(names)):
        raise ConfigError(f"--num_processes={count}, but --hosts lists {len(names)}")
    if index is None:
        mine = [i for i, name in enumerate(names) if _is_here(_split(name)[0])]
        if len(mine) != 1:
            found = f"is listed {len(mine)} times" if mine else "is not among them"
            raise ConfigError(
                f"--hosts={','.join(names)}: this machine, {socket.gethostname()}, {found}; say "
                "which one it is with --process_id"
            )
        index = mine[0]
    if len(names) == 1:
        return None
    host, port = split_address(names[0])
    if len({_split(name)[0] for name in names}) == 1:
        host = "localhost"  # all on one machine: others need not reach them
    return _checked(
        _address(coordinator) if coordinator else join_address(host, port), len(names), index
    )


def _detect(coordinator: str, count: int | None, index: int | None) -> ProcessSpec | None:
    """What JAX finds in the environment; flags that are given go first."""
    # JAX has no public name for this; `jax.distributed.initialize` would connect at once.
    from jax._src.clusters import ClusterEnv

    address, count, index, local = ClusterEnv.auto_detect_unset_distributed_params(
        coordinator or None, count, index, None, None, 60
    )
    if address is None or count is None or index is None:
        raise ConfigError(
            "--hosts=auto finds no TPU pod, SLURM step, Open MPI or Kubernetes job around this "
            "process; start it with the cluster's launcher, or name the hosts: --hosts=a,b,c"
        )
    if count == 1:
        return None
    # JAX gives a process of SLURM one accelerator, which is wrong where it is alone on its host or
    # the launcher has given it its own already.
    alone = os.environ.get("SLURM_NTASKS") == os.environ.get("SLURM_STEP_NUM_NODES", "")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if alone or (visible is not None and "," not in visible):
        local = None
    place = _checked(_address(address), count, index)
    return place._replace(local_device_ids=None if local is None else tuple(local))


def _checked(coordinator: str, count: int | None, index: int | None) -> ProcessSpec:
    if count is None or index is None or not 0 <= index < count:
        raise ConfigError(f"--process_id={index}; of {count} processes it must be in 0 … n-1")
    return ProcessSpec(coordinator, count, index)


def _read(hosts: str) -> list[str]:
    if hosts.startswith("@"):
        try:
            lines = Path(hosts[1:]).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ConfigError(f"--hosts={hosts}: {error}") from error
        names = [line.partition("#")[0].strip() for line in lines]
    else:
        names = [name.strip() for name in hosts.split(",")]
    names = [name for name in names if name]
    if not names:
        raise ConfigError(f"--hosts={hosts} names no host")
    return names


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``."""
    host, port = _split(address)
    return host, port or PORT


def _split(address: str) -> tuple[str, int]:
    """Host and port; 0 where there is none. An IPv6 address with a port stands in brackets."""
    host, colon, port = address.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        return address.strip("[]"), 0
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(
            f"{address!r} is no address; it looks like HOST:PORT, such as 10.0.0.2:8476"
        )
    return host.strip("[]"), int(port)


def join_address(host: str, port: int) -> str:
    """``host:port``; an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(address: str) -> str:
    return join_address(*split_address(address))


def _is_here(host: str) -> bool:
    """Whether a name or address is this machine's: only its own addresses can be bound."""
    if host.split(".")[0] == socket.gethostname().split(".")[0] and not host[0].isdecimal():
        return True
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.bind(address)
            except OSError:
                continue
            return True
    return False
