"""Videos where images are expected: how to make images of them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

SUFFIXES = {
    *(".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"),
}


def is_one(path: Path) -> bool:
    """Whether a file is a video, by its name."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def remedy(path: Path) -> str:
    """What to do with a video."""
    frames = shlex.quote(f"{path.stem}-frames")
    return (
        f"{path}: a video, of which images must be made first: mkdir {frames} && ffmpeg -i "
        f"{shlex.quote(str(path))} {frames}/%06d.png, then --images={frames}"
    )


def first_in(folders: Iterable[Path]) -> str:
    """What to do with the first video in folders without images, to be added to a sentence."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in SUFFIXES:
                return f"; there is {remedy(path)}"
    return ""
