"""Processes that meet, live and die together; the programs here compute nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jdet.parallel import cluster, coordinator, run_token, supervisor
from jdet.types import ConfigError

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
    times = dict(connect_seconds=float(seconds), timeout_seconds=5.0)
    sys.exit(supervisor.supervise(found, os.environ["WORKDIR"], **times))
except ConfigError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)  # as jdet.cli does
"""


@pytest.fixture(autouse=True)
def workdir(tmp_path, monkeypatch):
    """The folder that all processes share."""
    monkeypatch.setenv("WORKDIR", str(tmp_path / "run"))
    return tmp_path / "run"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(what, index, port, *, count=2, seconds=60, **environment):
    command = [sys.executable, "-c", PROGRAM, what, str(seconds)]
    return subprocess.Popen(
        [*command, f"127.0.0.1:{port}", str(count), str(index)],
        cwd=ROOT,
        env={**os.environ, **environment},
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
    assert code == 75 and f"error: the coordinator 127.0.0.1:{port} cannot be reached" in text, text
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


def test_only_who_shows_the_token_joins(workdir):
    port = free_port()
    first = start("0", 0, port, seconds=40)
    code, text = finish(start("0", 1, port, seconds=2, JDET_TOKEN="guessed"))
    assert code == 2 and "the token in variable JDET_TOKEN is not the run's" in text, text
    other = workdir.parent / "other"
    code, text = finish(start("0", 1, port, seconds=2, WORKDIR=str(other)))
    assert code == 2 and f"there is no token in workdir {other}. Give all processes a" in text, text
    assert f"process 0 at 127.0.0.1:{port} was reached" in text and "JDET_TOKEN" in text
    assert f"rejects process 1 (host {socket.gethostname()})" in text
    assert (workdir / run_token.FILE).stat().st_mode & 0o777 == 0o600
    assert finish(start("0", 1, port, seconds=40))[0] == 0 and finish(first)[0] == 0
    assert not workdir.exists()


def test_process_0_names_the_hosts_that_do_not_share_the_workdir(workdir):
    port = free_port()
    rejected = start("0", 1, port, count=3, WORKDIR=str(workdir.parent / "other"))
    came = start("0", 2, port, count=3)
    for code, text in (finish(start("0", 0, port, count=3, seconds=8)), finish(came)):
        assert code == 2 and "of 3 processes, 1 did not come within 8 s" in text, text
        assert (
            f"process 1 (host {socket.gethostname()}) reached process 0 without the token" in text
        )
        assert " connections rejected)" in text and f"is in workdir {workdir} on host" in text
        assert "same folder on every host, or the same secret" in text and "JDET_TOKEN" in text
    rejected.kill()
    finish(rejected)


def test_rejections_count_when_process_0_has_given_up(workdir, monkeypatch):
    """It may end first; but one that was preempted at once has not had the time to be understood."""

    def rejects(times):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]

            def process_0():
                for left in reversed(range(times)):
                    connection = server.accept()[0]
                    if not left:
                        server.close()  # first: no other connection may wait
                    connection.close()

            thread = threading.Thread(target=process_0)
            thread.start()
            place = cluster.ProcessSpec(f"127.0.0.1:{port}", 2, 1)
            try:
                return supervisor.supervise(place, workdir, connect_seconds=4.0)
            finally:
                thread.join()

    monkeypatch.setattr(supervisor, "LATE_SECONDS", 0.0)
    with pytest.raises(ConfigError, match=f"no token in workdir {workdir}"):
        rejects(2)
    assert rejects(1) == supervisor.TRY_AGAIN


def test_strangers_are_not_taken_for_a_missing_process(workdir):
    """Scanners and probes leave a process that is late what it is: the same command may do."""
    port = free_port()
    first = start("0", 0, port, seconds=8)
    deadline = time.monotonic() + 40
    while not (workdir / run_token.FILE).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    for index, host in ((0, "x"), (2, "x"), (None, "x"), (1, None), (1, "\x1b[2J")):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(json.dumps({"index": index, "host": host}).encode() + b"\n")
            assert stranger.recv(1) == b""
    code, text = finish(first)
    assert code == 75 and "1 did not come within 8 s; see whether they were started" in text, text


def test_a_secret_in_the_environment_takes_the_place_of_the_file(workdir):
    port = free_port()
    both = [
        start("0", index, port, JDET_TOKEN="ours", WORKDIR=f"{workdir}{index}") for index in (0, 1)
    ]
    assert [finish(process) for process in both] == [(0, "")] * 2
    assert not list(workdir.parent.iterdir())


def test_a_token_of_an_earlier_start_is_read_again(workdir):
    workdir.mkdir()
    (workdir / run_token.FILE).write_text("old")
    port = free_port()
    early = start("0", 1, port, seconds=40)
    time.sleep(1.0)
    assert finish(start("0", 0, port, seconds=40))[0] == 0 and finish(early)[0] == 0


def test_strangers_do_not_disturb_a_run(workdir):
    """Garbage, silence, floods and forged messages, before all have met and while the run goes on."""
    port = free_port()
    first = start("stop", 0, port, seconds=50)
    deadline = time.monotonic() + 40
    while not (workdir / run_token.FILE).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    hello = {"index": 1, "count": 2, "host": "evil", "pid": 1, "token": "x" * 64}
    forged = [{**hello, "token": token} for token in ("", None, 7, "é", "\ud800", hello["token"])]
    forged += [
        {"bad": 0, "why": "forged"},
        {"ended": 0},
        {"verdict": 0, "index": 0, "why": "forged"},
    ]
    shots = [json.dumps(message).encode() + b"\n" for message in forged]
    shots += [b"\xff\x00\n", b"[]\n", b"{\n", b"[" * 60_000 + b"\n", b"x" * (1 << 16)]
    for shot in shots:
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(shot)
            if shot.endswith(b"\n"):
                stranger.settimeout(10)
                assert stranger.recv(1) == b""  # dropped without an answer
    silent = [
        socket.create_connection(("127.0.0.1", port)) for _ in range(coordinator.STRANGERS + 40)
    ]
    second = start("stop", 1, port, seconds=50)
    child_of(first), child_of(second)
    with pytest.raises(ConnectionRefusedError):  # all are there: it does not listen any more
        socket.create_connection(("127.0.0.1", port))
    for stranger in silent:
        stranger.close()
    time.sleep(0.5)
    assert first.poll() is None and second.poll() is None
    for process in (first, second):
        process.send_signal(signal.SIGTERM)
    assert [finish(process)[0] for process in (first, second)] == [0, 0]


def names(listeners):
    found = {listener.getsockname()[0] for listener in listeners}
    for listener in listeners:
        listener.close()
    return found


def test_it_listens_where_it_must_alone(monkeypatch):
    def resolves(*addresses):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    assert names(coordinator.listen(f"127.0.0.1:{free_port()}", 2)) == {"127.0.0.1"}
    assert names(coordinator.listen(f"localhost:{free_port()}", 2)) <= {"127.0.0.1", "::1"}
    resolves("127.0.0.2")
    assert names(coordinator.listen(f"node7:{free_port()}", 2)) <= {
        "::",
        "0.0.0.0",
    }  # loopback only here
    resolves("203.0.113.7")  # of no interface here
    assert names(coordinator.listen(f"service:{free_port()}", 2)) <= {"::", "0.0.0.0"}
    monkeypatch.setattr(coordinator, "is_loopback", lambda host: False)
    resolves("127.0.0.2", "203.0.113.7")  # as an address of the network that is this machine's
    assert names(coordinator.listen(f"node7:{free_port()}", 2)) == {"127.0.0.2"}


def test_jax_listens_at_every_address_of_the_coordinator(monkeypatch):
    def meets(name, *addresses):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        hub = coordinator.Hub(coordinator.listen(f"{name}:{port}", 2), 2, "token", 0.0, 5.0)
        hub.close()
        return hub.bind_host, hub.address

    port = free_port()
    assert meets("localhost", "127.0.0.2", "127.0.0.3") == ("127.0.0.2", ("127.0.0.2", port))
    assert meets("service", "203.0.113.7") == ("", ("localhost", port))  # of no interface here
    monkeypatch.setattr(coordinator, "is_loopback", lambda host: False)
    assert meets("node7", "127.0.0.2") == ("127.0.0.2", ("127.0.0.2", port))
    assert meets("node7", "127.0.0.2", "127.0.0.3") == ("", ("127.0.0.2", port))
