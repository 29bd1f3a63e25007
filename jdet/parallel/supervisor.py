"""Starts the program of one process once all have met, and ends it when another one is lost.

JAX alone would hang in the next exchange, or abort with a stack trace that names no process. So the
program runs as a child of an agent that computes nothing: it meets the agents of the other processes
at process 0 (``jdet.parallel.coordinator``), and says in a line what happened to it or to the child.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jdet.parallel import run_token
from jdet.parallel.cluster import ProcessSpec, join_address, split_address
from jdet.parallel.connection import Link
from jdet.parallel.coordinator import (
    ABORTED,
    INTRODUCTION_SECONDS,
    KILLED,
    LOST,
    RAISED,
    REFUSED,
    Hub,
    Member,
    listen,
)
from jdet.types import ConfigError

ASSIGNED = "JDET_PROCESS"
"""Environment variable that tells the child what it is: JSON, read by ``jdet.parallel.worker``."""

TRY_AGAIN = 75
"""Exit code where another process was lost (EX_TEMPFAIL): the same command may do next time."""

EXIT_CODES = {LOST: TRY_AGAIN, KILLED: TRY_AGAIN, ABORTED: TRY_AGAIN, REFUSED: 2, RAISED: 1}

LATE_SECONDS = 60.0
"""Within this time a host sees what another one wrote; NFS caches folders for so long by default."""

SHARE = (
    "Give all processes a --workdir that is the same folder on every host, or the same secret in the "
    f"environment variable {run_token.VARIABLE}"
)

RESUME = (
    "Say the same command again, on as many hosts as there are now: the run goes on from its last "
    "checkpoint"
)


def supervise(
    place: ProcessSpec,
    workdir: str | os.PathLike[str],
    *,
    connect_seconds: float = 300.0,
    timeout_seconds: float = 30.0,
) -> int:
    """Runs this command again as one process of a run, and returns its exit code.

    Args:
        place: which process this is.
        workdir: of the run, where all processes find its token (``jdet.parallel.run_token``).
        connect_seconds: within which all processes must have met.
        timeout_seconds: of silence after which another process is taken for lost.

    Returns:
        The child's own code where all ended in good order or this is the process whose error ended
        the run; else what ``EXIT_CODES`` has for the other's end. ``TRY_AGAIN``, with a message,
        where process 0 could not be reached or not all came.

    Raises:
        ConfigError: two processes claim to be the same, they disagree on how many there are, process 0
            cannot listen, or a process reached it but does not have the token of the run: the workdir
            is not the same folder everywhere, which the same command will not change.
    """
    hub, token, workdir = None, "", Path(workdir)
    if place.index == 0:
        listeners = listen(
            place.coordinator, place.count
        )  # first: the workdir may be another run's
        token = run_token.draw(workdir)
        hub = Hub(listeners, place.count, token, connect_seconds, timeout_seconds)
    agent = _Agent(place, workdir, hub, connect_seconds, timeout_seconds)
    try:
        return agent.run()
    except Unmet as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return TRY_AGAIN
    finally:
        agent.close()
        if hub is not None:
            hub.close()
            run_token.discard(workdir, token)


class Unmet(RuntimeError):
    """The processes have not come together in time; the message says who is missing."""


class _Agent:
    def __init__(
        self,
        place: ProcessSpec,
        workdir: Path,
        hub: Hub | None,
        connect_seconds: float,
        timeout_seconds: float,
    ):
        self._place, self._workdir, self._timeout = place, workdir, timeout_seconds
        self._address = split_address(place.coordinator)
        self._bind = ""  # host where the program's own meeting point listens; "": everywhere
        if hub is not None:
            self._bind, self._address = hub.bind_host, hub.address
        self._connect_seconds = connect_seconds
        self._link: Link | None = None
        self._child: subprocess.Popen | None = None
        self._report: socket.socket | None = None
        self._reported = b""
        self._early: list[dict[str, Any]] = []  # messages that came before all had met
        self._asked: list[int] = []  # signals

    def close(self) -> None:
        """Leaves nothing behind."""
        if self._child is not None:
            self._kill(self._child)
        for end in (self._link, self._report):
            if end is not None:
                end.close()

    def run(self) -> int:
        link = self._link = self._connect()
        port, members = self._wait_for_all(link)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: self._asked.append(number))
        child = self._start(port)
        return self._follow(link, child, members)

    def _connect(self) -> Link:
        """Tries to be taken in by process 0 until the time is up.

        It drops those that do not show the run's token. A network file system may show the file late,
        or that of an earlier start: then the next attempt reads another.
        """
        deadline = time.monotonic() + self._connect_seconds
        rejection, first, last = "", 0.0, 0.0
        while True:
            token = run_token.find(self._workdir)
            try:
                link = Link(socket.create_connection(self._address, timeout=5.0))
            except OSError as error:
                unmet = (
                    f"the coordinator {self._place.coordinator} cannot be reached: "
                    f"{error.strerror or error}; tried for {self._connect_seconds:g} s. See whether "
                    "process 0 was started on that host, and whether the port is open "
                    "(--connect_seconds waits longer)"
                )
            else:
                if self._introduce(link, token):
                    return link
                unmet = f"process 0 at {self._place.coordinator} accepts connections but does not answer"
                if link.closed:
                    last = time.monotonic()
                    first = first if rejection else last
                    unmet = rejection = self._rejection(token)
                link.close()
            if time.monotonic() > deadline:
                # Process 0 may have given up before. If it rejected this process for long, that is why;
                # if only for a moment, it may have been preempted before the token was seen here.
                patience = min(LATE_SECONDS, self._connect_seconds / 2)
                if rejection and (unmet == rejection or last - first > patience):
                    raise ConfigError(rejection)
                raise Unmet(unmet)
            time.sleep(0.5)

    def _rejection(self, token: str) -> str:
        source = run_token.source(self._workdir)
        found = (
            f"the token in {source} is not the run's" if token else f"there is no token in {source}"
        )
        return (
            f"process 0 at {self._place.coordinator} was reached, but rejects process "
            f"{self._place.index} (host {socket.gethostname()}): "
            f"{found}. {SHARE}"
        )

    def _introduce(self, link: Link, token: str) -> bool:
        """Says which process this is; False where process 0 hung up, or is silent.

        Without a token too: process 0 can then name this process to whoever waits for it.
        """
        link.send(
            token=token,
            index=self._place.index,
            count=self._place.count,
            host=socket.gethostname(),
            pid=os.getpid(),
        )
        deadline = time.monotonic() + INTRODUCTION_SECONDS
        while not link.closed and time.monotonic() < deadline:
            self._early = link.receive(0.2)  # what follows the answer may come with it
            for message in self._early:
                if "refused" in message:
                    raise ConfigError(str(message["refused"]))
                return True
        return False

    def _wait_for_all(self, link: Link) -> tuple[int, list[Member]]:
        # Process 0 keeps the time; a margin lets its answer come first.
        deadline = time.monotonic() + self._connect_seconds + 5.0
        while True:
            for message in [*self._early, *link.receive(0.2)]:
                if message.get("rejected"):
                    raise ConfigError(
                        f"{message['unmet']}, which is in {run_token.source(self._workdir)} on host "
                        f"{socket.gethostname()}. {SHARE}"
                    )
                if "unmet" in message:
                    raise Unmet(str(message["unmet"]))
                if "go" in message:
                    return message["go"], [Member(*member) for member in message["members"]]
            if link.closed or time.monotonic() > deadline:
                raise Unmet(
                    f"process 0 at {self._place.coordinator} "
                    + ("hung up" if link.closed else "did not answer in time")
                    + " before all processes had met; its own output says more"
                )
            link.beat()

    def _start(self, port: int) -> subprocess.Popen:
        self._report, theirs = socket.socketpair()
        host = self._place.coordinator.rpartition(":")[0]
        assigned = {
            **self._place._asdict(),
            "coordinator": f"{host}:{port}",
            "report": theirs.fileno(),
            "bind": join_address(self._bind, port) if self._bind else None,
        }
        # In a session of its own: signals reach it through this process alone, and once.
        with theirs:
            child = self._child = subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]],
                env={**os.environ, ASSIGNED: json.dumps(assigned)},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        return child

    def _follow(self, link: Link, child: subprocess.Popen, members: list[Member]) -> int:
        """Passes on signals, news of the child, and the last word of process 0."""
        told, forwarded = False, 0
        while True:
            for message in link.receive(0.2):
                if "done" in message:
                    return child.wait()
                if "verdict" in message:
                    return self._stop(child, members, **message)
            if link.closed or link.silence() > self._timeout:
                why = "hung up" if link.closed else f"has been silent for {self._timeout:g} s"
                return self._stop(child, members, LOST, 0, f"is lost: its agent {why}")
            link.beat()
            for number in self._asked[forwarded:]:
                forwarded += 1
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(number)
            if not told and (news := self._news(child)):
                link.send(**news)
                told = True

    def _news(self, child: subprocess.Popen) -> dict[str, Any]:
        """What is to be told of the child's end; nothing while it lives in good order."""
        code = child.poll()
        report = self._read_report()
        if "bad" in report:  # at once: it may wait for the others on its way out
            return report
        if code is None:
            return {}
        if report:
            return report
        if code == 0:
            return {"ended": 0}
        if code < 0:
            kind = ABORTED if code == -signal.SIGABRT else KILLED
            return {"bad": kind, "why": f"was ended by {signal.Signals(-code).name}"}
        kind = REFUSED if code == 2 else RAISED
        return {"bad": kind, "why": f"ended with exit code {code}; its own output says why"}

    def _read_report(self) -> dict[str, Any]:
        """What the child said of its end, once it has."""
        assert self._report is not None
        if not self._reported and select.select([self._report], [], [], 0)[0]:
            with contextlib.suppress(OSError):
                self._reported = self._report.recv(1 << 16)
        return json.loads(self._reported) if self._reported else {}

    def _stop(
        self, child: subprocess.Popen, members: list[Member], verdict: int, index: int, why: str
    ) -> int:
        """Ends the child, and says why unless it does so itself."""
        if index == self._place.index:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = child.wait(timeout=5.0)  # to print its error
                return code if code > 0 else 128 - code if code else EXIT_CODES[verdict]
            self._kill(child)
            print(f"error: this process {why}. {RESUME}", file=sys.stderr, flush=True)
            return EXIT_CODES[verdict]
        self._kill(child)
        advice = "" if verdict == REFUSED else f". {RESUME}"
        name = members[index].name(self._place.count)
        print(f"error: {name} {why}; this process stops too{advice}", file=sys.stderr, flush=True)
        return EXIT_CODES[verdict]

    def _kill(self, child: subprocess.Popen) -> None:
        if child.poll() is None:
            child.kill()
            child.wait()
