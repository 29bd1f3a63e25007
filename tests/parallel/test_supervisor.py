"""Processes that meet, live and die together; the programs here compute nothing."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import json, os, signal, socket, sys, time
from jdet.parallel import cluster, supervisor, worker
from jdet.types import ConfigError

what, seconds, *here = sys.argv[1:]
if supervisor.ASSIGNED in os.environ:
    print("child", os.getpid(), flush=True)
    if what == "wait":
        time.sleep(600)
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "abort":
        os.kill(os.getpid(), signal.SIGABRT)
    elif what == "mistake":
        report = json.loads(os.environ[supervisor.ASSIGNED])["report"]
        worker.Session(socket.socket(fileno=report)).fails(ConfigError("a.jpg: no image\\nmore"))
        time.sleep(600)  # as where it waits for the others on its way out
    elif what == "stop":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        time.sleep(600)
    sys.exit(int(what) if what.isdecimal() else 0)
address, count, index = here
try:
    found = cluster.find("", address, int(count), int(index))
    sys.exit(supervisor.supervise(found, connect_seconds=float(seconds), timeout_seconds=5.0))
except ConfigError as error:
    sys.exit(f"error: {error}")
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(what, index, port, *, count=2, seconds=60):
    command = [sys.executable, "-c", PROGRAM, what, str(seconds)]
    return subprocess.Popen(
        [*command, f"127.0.0.1:{port}", str(count), str(index)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def together(*programs, **options):
    """Exit code and last error line of every process."""
    port = free_port()
    processes = [
        start(what, index, port, count=len(programs), **options)
        for index, what in enumerate(programs)
    ]
    return [finish(process) for process in processes]


def finish(process):
    _, errors = process.communicate(timeout=60)
    return process.returncode, (errors.strip().splitlines() or [""])[-1]


def child_of(process):
    return int(process.stdout.readline().split()[1])


def gone(pid):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_all_end_with_their_own_codes():
    assert together("0", "0", "0") == [(0, "")] * 3


def test_a_killed_process_is_named_to_the_others():
    (zero, message), (one, _), (two, other) = together("wait", "kill", "wait")
    assert (zero, one, two) == (75, 128 + signal.SIGKILL, 75)
    for text in (message, other):
        assert text.startswith(f"error: process 1 of 3 (host {socket.gethostname()}, pid ")
        assert "was ended by SIGKILL; this process stops too" in text and "last checkpoint" in text


def test_who_lives_but_does_not_answer_is_the_cause_of_aborts():
    (zero, text), (one, own) = together("abort", "wait")
    assert zero == one == 75
    assert "process 1 of 2" in text and "did not answer" in text
    assert own.startswith("error: this process did not answer")


def test_a_mistake_is_not_to_be_tried_again():
    (zero, text), (one, _) = together("wait", "2")
    assert zero == one == 2 and "process 1 of 2" in text and "exit code 2" in text
    assert "checkpoint" not in text
    (zero, text), (one, _) = together("wait", "mistake")
    assert zero == one == 2 and text.endswith("ended: a.jpg: no image; this process stops too")


def test_the_end_of_an_agent_ends_all_and_leaves_no_children():
    for victim in (0, 1):
        port = free_port()
        processes = [start("wait", index, port) for index in (0, 1)]
        children = [child_of(process) for process in processes]
        processes[victim].kill()
        code, text = finish(processes[1 - victim])
        assert code == 75 and f"process {victim} of 2" in text
        assert gone(children[1 - victim])
        os.kill(children[victim], signal.SIGKILL)  # this one does not watch its agent
        finish(processes[victim])


def test_silence_is_noticed():
    port = free_port()
    processes = [start("wait", index, port) for index in (0, 1)]
    child = [child_of(process) for process in processes][1]
    processes[1].send_signal(signal.SIGSTOP)
    code, text = finish(processes[0])
    assert code == 75 and "process 1 of 2" in text and "not been heard of for 5 s" in text
    os.kill(child, signal.SIGKILL)
    processes[1].kill()
    finish(processes[1])


def test_signals_reach_the_child():
    port = free_port()
    processes = [start("stop", index, port) for index in (0, 1)]
    for process in processes:
        child_of(process)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
    assert [finish(process)[0] for process in processes] == [0, 0]


def test_the_wait_for_the_others_is_bounded():
    port = free_port()
    code, text = finish(start("0", 1, port, seconds=1))
    assert code == 75 and f"error: the coordinator 127.0.0.1:{port} cannot be reached" in text
    assert "Connection refused; tried for 1 s" in text
    code, text = finish(start("0", 0, port, count=3, seconds=1))
    assert code == 75 and "error: of 3 processes, 1, 2 did not come within 1 s" in text


def test_who_does_not_fit_is_refused():
    port = free_port()
    first = start("0", 0, port, seconds=30)
    _, text = finish(start("0", 1, port, count=3, seconds=30))
    assert "--num_processes is 3" in text and "2 at process 0" in text
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert stranger.recv(1) == b""
    _, text = finish(start("0", 0, port, seconds=30))
    assert f"cannot listen on port {port}" in text
    assert finish(start("0", 1, port, seconds=30))[0] == 0 and finish(first)[0] == 0
