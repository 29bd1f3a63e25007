"""One digest of a long list, by which each of its entries can be proved: a Merkle tree of SHA-256.

The tree is that of RFC 6962, section 2.1 (Certificate Transparency): leaves and inner nodes are told apart
by a first byte, and a list is split at the largest power of two below its length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def root(entries: Iterable[bytes]) -> str:
    """The root of the tree over some entries, in their order, as 64 hexadecimal digits."""
    # Complete subtrees from left to right, with their numbers of leaves: equal neighbours are joined,
    # which gives the same tree as splitting from the top, without recursion.
    done: list[tuple[int, bytes]] = []
    for entry in entries:
        done.append((1, hashlib.sha256(b"\x00" + entry).digest()))
        while len(done) > 1 and done[-1][0] == done[-2][0]:
            _join(done)
    while len(done) > 1:
        _join(done)
    return done[0][1].hex() if done else hashlib.sha256(b"").hexdigest()


def _join(done: list[tuple[int, bytes]]) -> None:
    (right_size, right), (left_size, left) = done.pop(), done.pop()
    done.append((left_size + right_size, hashlib.sha256(b"\x01" + left + right).digest()))
