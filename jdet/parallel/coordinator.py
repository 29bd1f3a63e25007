"""The meeting point of the processes of a run, kept by process 0.

Every process keeps a connection to it, over which both ends say every two seconds that they live.
When one ends badly, falls silent or loses its connection, the hub waits a moment for what else it
hears (a death makes errors everywhere), settles on the cause, and tells everyone, so that all stop. It
listens at the coordinator's address alone and takes in only those that show the token of the run; others
are dropped without an answer.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from jdet.parallel import run_token
from jdet.parallel.cluster import split_address
from jdet.parallel.connection import BEAT_SECONDS, Link
from jdet.types import ConfigError

LOST, KILLED, REFUSED, RAISED, ABORTED = range(5)
"""Failure kinds, likeliest root cause first: lost, killed, invalid input, exception, runtime abort."""

GRACE_SECONDS = 3.0
"""How long the hub listens on after the first bad news."""

STRANGERS = 64
"""Connections that may be open at a time without having shown the token; the oldest give way."""

INTRODUCTION_SECONDS = 5.0
"""How long a connection may take to show it."""

EVERYWHERE = ("::", "0.0.0.0")
"""Hosts of sockets that listen at all addresses."""


class Member(NamedTuple):
    """A process as it introduced itself.

    Attributes:
        index: among the processes.
        host: name of its machine.
        pid: of the process on it.
    """

    index: int
    host: str
    pid: int

    def name(self, count: int) -> str:
        """As people are told of it."""
        return f"process {self.index} of {count} (host {self.host}, pid {self.pid})"


class Hub:
    """Listens in a thread of its own from the beginning to the end of the run."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        count: int,
        token: str,
        connect_seconds: float,
        timeout_seconds: float,
    ):
        """Begins to wait for the processes.

        Args:
            listeners: sockets of ``listen``; closed once all processes have come.
            count: processes that must come.
            token: of the run, which they must show.
            connect_seconds: within which they must come.
            timeout_seconds: of silence after which a process is lost.
        """
        self._listeners = listeners
        self._count, self._token, self._timeout = count, token, timeout_seconds
        self._connect_seconds = connect_seconds
        self._links: dict[int, Link] = {}
        self._members: dict[int, Member] = {}
        self._rejected: dict[int, str] = {}  # hosts of missing processes without the token
        self._rejections = 0
        self._hosts = [str(listener.getsockname()[0]) for listener in listeners]
        self._port: int = listeners[0].getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Where a process on this machine reaches it."""
        host = self._hosts[0]
        return "localhost" if host in EVERYWHERE else host, self._port

    @property
    def bind_host(self) -> str:
        """Where JAX's own service is to listen on this machine; "": at all addresses.

        That service takes one address. Where the coordinator's name has several (IPv4 and IPv6), some
        hosts may reach only one of them, and which is not known here: so it listens at all. Loopback is
        used from this machine alone, where clients try every address of the name: the first one does.
        """
        several = len(self._hosts) > 1 and not all(map(is_loopback, self._hosts))
        return "" if several or self._hosts[0] in EVERYWHERE else self._hosts[0]

    def close(self) -> None:
        """Waits a moment until everyone has gone."""
        self._thread.join(timeout=10.0)

    def _run(self) -> None:
        try:
            if self._gather():
                self._tell(**self._attend())
            # Whoever has read the last word hangs up.
            deadline = time.monotonic() + 5.0
            while self._open() and time.monotonic() < deadline:
                self._hear(0.2)
        finally:
            for link in self._links.values():
                link.close()
            self._stop_listening()

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()

    def _open(self) -> list[Link]:
        return [link for link in self._links.values() if not link.closed]

    def _tell(self, **message: Any) -> None:
        for link in self._open():
            link.send(**message)

    def _gather(self) -> bool:
        """Waits for all processes to introduce themselves; False where that failed."""
        deadline = time.monotonic() + self._connect_seconds
        strangers: list[Link] = []
        while len(self._links) < self._count:
            left = deadline - time.monotonic()
            if left <= 0:
                self._tell(unmet=self._missing(), rejected=bool(self._rejected))
                return False
            for link in self._open():
                link.beat()
            select.select([*self._listeners, *strangers], [], [], min(left, 0.2))
            strangers = self._receive(strangers)
            for index in [i for i, link in self._links.items() if self._has_left(link)]:
                del self._links[index], self._members[index]  # may come again
        for link in strangers:
            link.close()
        self._stop_listening()  # all are here
        members = [self._members[i] for i in range(self._count)]
        self._tell(go=_free_port(), members=members)
        return True

    def _missing(self) -> str:
        """Who did not come, and what is known of why."""
        missing = sorted({*range(self._count)} - {*self._links})
        text = (
            f"of {self._count} processes, {', '.join(map(str, missing))} did not come within "
            f"{self._connect_seconds:g} s; "
        )
        if not self._rejected:
            return text + "see whether they were started, and whether they can reach this address"
        who = ", ".join(f"process {i} (host {host})" for i, host in sorted(self._rejected.items()))
        return text + (
            f"{who} reached process 0 without the token of the run ({self._rejections} connections "
            "rejected)"
        )

    def _receive(self, strangers: list[Link]) -> list[Link]:
        """Takes in those that have introduced themselves; returns those that have still to."""
        for listener in select.select(self._listeners, [], [], 0)[0]:
            with contextlib.suppress(OSError):
                strangers = [*strangers, Link(listener.accept()[0])]
        silent = []
        for link in strangers:
            messages = link.receive()
            if not messages and not link.closed and link.silence() < INTRODUCTION_SECONDS:
                silent.append(link)
            elif not messages or not self._admit(link, messages[0]):
                link.close()
        for link in silent[:-STRANGERS]:
            link.close()
        return silent[-STRANGERS:]

    def _has_left(self, link: Link) -> bool:
        link.receive()
        return link.closed

    def _admit(self, link: Link, hello: dict[str, Any]) -> bool:
        if not run_token.matches(hello.get("token"), self._token):
            self._reject(hello.get("index"), hello.get("host"))
            return False
        index, count, host, pid = (hello[key] for key in ("index", "count", "host", "pid"))
        refused = ""
        if count != self._count:
            refused = f"--num_processes is {count} on host {host}, and {self._count} at process 0"
        elif index in self._links:
            taken = self._members[index].name(count)
            refused = f"--process_id={index} of host {host} is taken by {taken}"
        if refused:
            link.send(refused=refused)
            return False
        link.send(admitted=True)
        self._links[index] = link
        self._members[index] = Member(index, host, pid)
        self._rejected.pop(index, None)  # a network file system showed it the token late
        return True

    def _reject(self, index: object, host: object) -> None:
        """Remembers a process that is still missing; whoever else connects is none of the run's."""
        if type(index) is not int or not 0 <= index < self._count or index in self._links:
            return
        if isinstance(host, str) and host.isprintable():  # it goes to a terminal
            self._rejected[index] = host[:255]
            self._rejections += 1

    def _hear(self, seconds: float) -> list[tuple[int, dict[str, Any]]]:
        """Messages of all, with who sent them."""
        open_links = {i: link for i, link in self._links.items() if not link.closed}
        ready = select.select(list(open_links.values()), [], [], seconds)[0]
        for link in open_links.values():
            link.beat()
        return [(i, m) for i, link in open_links.items() if link in ready for m in link.receive()]

    def _attend(self) -> dict[str, Any]:
        """Follows the run until it is over; returns what everyone is told then."""
        ended: dict[int, int] = {}  # exit codes of those that ended in good order
        bad: dict[int, tuple[int, str]] = {}  # how the others did, and what is known of it
        deadline = None
        while True:
            for index, message in self._hear(0.2):
                if "ended" in message:
                    ended[index] = message["ended"]
                elif "bad" in message:
                    bad.setdefault(index, (message["bad"], message["why"]))
            for index, link in self._links.items():
                if index in ended or index in bad:
                    continue
                if link.closed:
                    bad[index] = LOST, "is gone: its connection was closed"
                elif link.silence() > self._timeout:
                    bad[index] = LOST, f"has not been heard of for {self._timeout:g} s"
            if len(ended) == self._count:
                return {"done": max(ended.values())}
            if bad and deadline is None:
                deadline = time.monotonic() + GRACE_SECONDS
            if deadline is not None and (
                len(ended) + len(bad) == self._count
                or (time.monotonic() > deadline and not self._doubtful(ended, bad))
            ):
                return self._verdict(ended, bad)

    def _doubtful(self, ended: dict[int, int], bad: dict[int, tuple[int, str]]) -> bool:
        """Whether all errors may only follow from one that is silent, but not yet for long enough."""
        waiting = [i for i in self._links if i not in ended and i not in bad]
        silent = any(self._links[i].silence() > 3 * BEAT_SECONDS for i in waiting)
        return silent and min(bad.values())[0] >= RAISED

    def _verdict(self, ended: dict[int, int], bad: dict[int, tuple[int, str]]) -> dict[str, Any]:
        kind, index = min((kind, index) for index, (kind, _) in bad.items())
        why = bad[index][1]
        mute = [i for i in range(self._count) if i not in ended and i not in bad]
        if kind == ABORTED and mute:  # the runtime of the others gave up on one that lives
            index, why = mute[0], "did not answer the other processes any more"
        return {"verdict": kind, "index": index, "why": why}


def listen(address: str, backlog: int) -> list[socket.socket]:
    """Listens where the other processes connect to, and nowhere else if that can be known.

    Args:
        address: ``host:port`` as the other processes are told it. Where the host means addresses of this
            machine, these alone are bound. Where it cannot be bound (an address that is forwarded), or
            is a name that means loopback only here, as hosts files have it for a machine's own name,
            all addresses are.
        backlog: connections that may wait.

    Raises:
        ConfigError: the port is taken.
    """
    host, port = split_address(address)
    try:
        return _listen(host, port, backlog)
    except OSError as error:
        raise ConfigError(
            f"process 0 cannot listen on port {port}: {error.strerror or error}; another run may "
            "use it: give --coordinator another port, on all processes"
        ) from error


def _listen(host: str, port: int, backlog: int) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        found = []
    addresses = dict.fromkeys((family, address) for family, *_, address in found)
    if not is_loopback(host) and any(is_loopback(str(address[0])) for _, address in addresses):
        addresses = {}
    listeners: list[socket.socket] = []
    for family, address in addresses:
        try:
            listeners.append(socket.create_server(address, family=family, backlog=backlog))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                for listener in listeners:
                    listener.close()
                raise
    if listeners:
        return listeners
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return [socket.create_server(("", port), family=family, backlog=backlog, dualstack_ipv6=both)]


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine wherever it is said."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
