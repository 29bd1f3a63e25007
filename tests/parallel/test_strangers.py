"""What strangers send to the coordinator's port is no message, and never an exception."""

import socket

import pytest

from jdet.parallel.connection import Link
from jdet.parallel.run_token import matches


@pytest.mark.parametrize(
    "sent", [b"[" * 60_000 + b"\n", b"{\n", b"[]\n", b"\xff\n", b"9" * 10_000 + b"\n", b"null\n"]
)
def test_what_is_no_message_closes_the_connection(sent):
    ours, theirs = socket.socketpair()
    link = Link(ours)
    with theirs:
        theirs.sendall(sent)
        for _ in range(9):
            assert link.receive(0.2) == []
            if link.closed:
                break
    link.close()
    assert link.silence() < 60 and link.closed


@pytest.mark.parametrize("shown", [None, 7, [], {}, "", "\ud800", "é", "x" * 64])
def test_what_is_not_the_token(shown):
    assert not matches(shown, "a" * 64)
    assert matches("a" * 64, "a" * 64)
