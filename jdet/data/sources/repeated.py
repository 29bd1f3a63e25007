"""Images for evaluation that were trained on."""

from __future__ import annotations

import filecmp
import functools
import hashlib
import os
from collections.abc import Sequence

from jdet.types import Source

COMPARED = 500
"""Files of equal names whose content is compared at most, and twice that of other names."""

SEARCHED = 20_000
"""Training images up to which copies under other names are looked for, among files of one size."""


def repeated_images(train: Source, evaluation: Source) -> list[str]:
    """Paths of the evaluation images that are training images too: the same files, or copies of them.

    Sources that do not say where their images are (``image_paths``) share none.
    """
    ours, theirs = (getattr(source, "image_paths", ()) for source in (train, evaluation))
    folder = functools.cache(os.path.realpath)
    places = {_place(path, folder) for path in ours}
    named: dict[str, list[str]] = {}
    for path in ours:
        named.setdefault(os.path.basename(path), []).append(path)
    sized: dict[int, list[str]] = {}
    for path in ours if theirs and len(ours) <= SEARCHED else ():
        sized.setdefault(_size(path), []).append(path)
    digests: dict[str, bytes] = {}
    found, compared = [], 0
    for path in theirs:
        copies = named.get(os.path.basename(path), ())
        if _place(path, folder) in places:
            found.append(path)
            continue
        same = False
        if copies and compared < COMPARED:
            compared += 1
            same = any(_same(path, copy) for copy in copies)
        if not same and _size(path) > 0:
            same = _is_among(path, sized.get(_size(path), ()), digests)
        if same:
            found.append(path)
    return found


def warning(train: Source, evaluation: Source) -> str:
    """What to say about them; "" where there are none."""
    found = repeated_images(train, evaluation)
    if not found:
        return ""
    more = ", …" if len(found) > 3 else ""
    return (
        f"{len(found)} of {len(evaluation)} images for evaluation are images of the training set as well "
        f"({', '.join(found[:3])}{more}): the numbers will flatter. Take them out of one of the two."
    )


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _is_among(path: str, others: Sequence[str], digests: dict[str, bytes]) -> bool:
    """Whether a file has the content of another; no more are read than ``COMPARED`` allows."""
    wanted = [path, *others] if others else []
    for each in wanted:
        if each not in digests:
            if len(digests) >= 2 * COMPARED:
                return False
            try:
                with open(each, "rb") as file:
                    digests[each] = hashlib.file_digest(file, "sha256").digest()
            except OSError:
                digests[each] = each.encode()  # equal to no other
    return any(digests[other] == digests[path] for other in others)


def _place(path: str, folder) -> tuple[str, str]:
    where, name = os.path.split(path)
    return folder(where), name


def _same(a: str, b: str) -> bool:
    try:
        return os.path.getsize(a) > 0 and filecmp.cmp(a, b, shallow=False)
    except OSError:
        return False
