"""Images for evaluation that were trained on."""

from __future__ import annotations

import filecmp
import functools
import os

from jdet.types import Source

COMPARED = 500
"""Files of equal names whose content is compared at most."""


def repeated_images(train: Source, evaluation: Source) -> list[str]:
    """Paths of the evaluation images that are training images too: the same files, or copies of one name.

    Sources that do not say where their images are (``image_paths``) share none.
    """
    ours, theirs = (getattr(source, "image_paths", ()) for source in (train, evaluation))
    folder = functools.cache(os.path.realpath)
    places = {_place(path, folder) for path in ours}
    named: dict[str, list[str]] = {}
    for path in ours:
        named.setdefault(os.path.basename(path), []).append(path)
    found, compared = [], 0
    for path in theirs:
        copies = named.get(os.path.basename(path), ())
        if _place(path, folder) in places:
            found.append(path)
        elif copies and compared < COMPARED:
            compared += 1
            if any(_same(path, copy) for copy in copies):
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


def _place(path: str, folder) -> tuple[str, str]:
    where, name = os.path.split(path)
    return folder(where), name


def _same(a: str, b: str) -> bool:
    try:
        return os.path.getsize(a) > 0 and filecmp.cmp(a, b, shallow=False)
    except OSError:
        return False
