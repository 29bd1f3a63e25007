"""Remedies of hosts, processes and their devices."""

import contextlib
import socket
from types import SimpleNamespace
from unittest import mock

import jax

from jdet.evaluation.detect import DetectFn
from jdet.parallel import cluster, consistency, coordinator, run_token
from tests.remedies.rows import Elsewhere, Untyped, row

CALIBRATE, CLUSTER = "jdet/train/init/calibrate.py", "jdet/parallel/cluster.py"

COORDINATOR, SUPERVISOR = "jdet/parallel/coordinator.py", "jdet/parallel/supervisor.py"


def devices(counts):
    found = [
        SimpleNamespace(process_index=i, platform="gpu")
        for i, n in enumerate(counts)
        for _ in range(n)
    ]
    with mock.patch.object(jax, "devices", lambda: found):
        with mock.patch.object(jax, "process_count", lambda: len(counts)):
            consistency._check_devices()


def hosts(**given):
    cluster.find(**given)


def listening(other_port):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        if other_port:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
        for one in coordinator.listen(f"127.0.0.1:{port}", 1):
            one.close()


def secret(folder, given):
    with contextlib.ExitStack() as stack:
        refuse = mock.Mock(side_effect=PermissionError())
        stack.enter_context(mock.patch.object(run_token.Path, "read_text", refuse))
        if given:
            stack.enter_context(mock.patch.dict("os.environ", {run_token.VARIABLE: "ours"}))
        run_token.find(folder)


ROWS = [
    row(
        "jdet/evaluation/detect.py",
        "take a multiple of {}, or set parallel.devices",
        lambda size, count: DetectFn._check(SimpleNamespace(devices=range(count)), size),
        {"size": 6, "count": 4},
        {"size": 8},
        {"count": 3},
    ),
    row(
        "jdet/parallel/consistency.py",
        "give all the same (a device may be broken or taken), or leave that host out",
        devices,
        {"counts": (4, 3)},
        {"counts": (3, 3)},
        {"counts": (4,)},
    ),
    Untyped(
        "jdet/parallel/consistency.py",
        "Start the same command with the same code and data on every host",
        "needs two hosts that differ",
    ),
    row(
        CLUSTER,
        "or --hosts=auto or a list",
        hosts,
        {"num_processes": 2},
        {"coordinator": "a:8476", "process_id": 1},
        {"hosts": f"{socket.gethostname()},other"},
    ),
    row(
        CLUSTER,
        "--num_processes={}, but --hosts lists",
        hosts,
        {"hosts": "a,b", "num_processes": 3, "process_id": 0},
        {"num_processes": 2},
        {"hosts": "a,b,c"},
    ),
    row(
        CLUSTER,
        "say which one it is with --process_id",
        hosts,
        {"hosts": "nowhere-1,nowhere-2"},
        {"process_id": 1},
    ),
    row(
        CLUSTER,
        "or name the hosts: --hosts=a,b,c",
        hosts,
        {"hosts": "auto"},
        {"hosts": f"{socket.gethostname()},b,c"},
    ),
    row(
        CLUSTER,
        "of {} processes it must be in 0 … n-1",
        hosts,
        {"coordinator": "a:1", "num_processes": 2, "process_id": 2},
        {"process_id": 1},
    ),
    row(
        CLUSTER, "--hosts={}: {}", hosts, {"hosts": "@nowhere.txt"}, {"hosts": socket.gethostname()}
    ),
    row(CLUSTER, "names no host", hosts, {"hosts": " , "}, {"hosts": socket.gethostname()}),
    row(
        CLUSTER,
        "such as 10.0.0.2:8476",
        hosts,
        {"coordinator": "a:b", "num_processes": 2, "process_id": 1},
        {"coordinator": "10.0.0.2:8476"},
    ),
    row(
        COORDINATOR,
        "give --coordinator another port, on all processes",
        listening,
        {"other_port": False},
        {"other_port": True},
    ),
    Elsewhere(
        COORDINATOR,
        "see whether they were started, and whether they can reach this address",
        "tests/parallel/test_supervisor.py::test_strangers_are_not_taken_for_a_missing_process",
        "see whether they were started",
    ),
    Elsewhere(
        COORDINATOR,
        "--num_processes is {} on host",
        "tests/parallel/test_supervisor.py::test_who_does_not_fit_is_refused",
        "--num_processes is 3",
    ),
    Elsewhere(
        COORDINATOR,
        "--process_id={} of host {} is taken by",
        "tests/parallel/test_supervisor.py::test_who_does_not_fit_is_refused",
        "start('0', 1, port, seconds=30)",
    ),
    row(
        "jdet/parallel/run_token.py",
        "them the same secret in",
        secret,
        {"given": False},
        {"given": True},
    ),
    Elsewhere(
        SUPERVISOR,
        "or the same secret in the",
        "tests/parallel/test_supervisor.py::test_a_secret_in_the_environment_takes_the_place_of_the_file",
        "JDET_TOKEN",
    ),
    Elsewhere(
        SUPERVISOR,
        "Say the same command again",
        "tests/parallel/test_launch.py::test_hosts_of_a_list_go_on_when_one_is_lost_and_so_does_one_alone",
        "resuming from step",
    ),
    Elsewhere(
        SUPERVISOR,
        "--connect_seconds waits longer",
        "tests/parallel/test_supervisor.py::test_the_wait_for_the_others_is_bounded",
        "tried for 1 s",
    ),
]
