"""Lists the image files of folders, patterns and file names."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from jdet.data.image_formats import SUFFIXES
from jdet.data.readers.file_pattern import FilePattern

CLUTTER = {"__MACOSX", "@eaDir", "Thumbs.db"}
"""Folders and files that systems put beside images: copies of metadata, thumbnails."""


class ImageFile(NamedTuple):
    """An image to read.

    Attributes:
        path: where it is.
        name: path below the folder it was found in, with forward slashes; unique within a search.
        parts: all files of an image that has several.
    """

    path: Path
    name: str
    parts: tuple[str, ...] = ()


def find_images(
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    exclude: Path | None = None,
) -> list[ImageFile]:
    """Lists the images that files, folders and glob patterns stand for.

    Folders are searched recursively for ``SUFFIXES``, in any case, but for hidden files and folders and
    ``CLUTTER``; files that are named, or matched by a pattern, are taken whatever they are called. What
    does not exist, and a folder that may not be read, is listed too, so that reading it reports it. A file
    that is found twice counts once.

    Args:
        images: one or several.
        exclude: folder to leave out of the search, such as the output of an earlier run.

    Returns:
        Files in the order given, sorted within folders and patterns.
    """
    items = [images] if isinstance(images, (str, os.PathLike)) else list(images)
    exclude = exclude.resolve() if exclude else None
    found: dict[Path, str] = {}
    for item in map(expanded, items):
        if not item.exists() and glob.has_magic(str(item)):
            matches = sorted(map(Path, glob.glob(_pattern(item), recursive=True)))
        else:
            matches = [item]
        for match in matches or [item]:
            if not match.is_dir():
                found.setdefault(match.resolve(), match.name)
                continue
            for path in sorted(_within(match)):
                inside = exclude is not None and path.resolve().is_relative_to(exclude)
                if not inside and not is_clutter(path.relative_to(match)):
                    name = match.name if path == match else path.relative_to(match).as_posix()
                    found.setdefault(path.resolve(), name)
    taken: set[str] = set()
    return [ImageFile(path, unique_name(name, taken)) for path, name in found.items()]


def together(files: Iterable[ImageFile], pattern: str) -> list[ImageFile]:
    """Files that make one image, as one, by ``FilePattern``; it has the name of the first that was found.

    Files that are called like none of the pattern stay alone. A file that an image lacks is listed among
    its parts all the same, so that reading it reports it.
    """
    parts = FilePattern(pattern)
    found: dict[str, ImageFile] = {}
    for file in files:
        path = file.path.as_posix()
        for stem, names in parts.groups([path]).items() or [(path, ())]:
            found.setdefault(stem, file._replace(parts=names))
    return list(found.values())


def _within(folder: Path) -> Iterator[Path]:
    """The image files below a folder, and the folders that may not be read."""
    closed: list[Path] = []
    for inner, _, names in os.walk(folder, onerror=lambda e: closed.append(Path(e.filename))):
        paths = (Path(inner, name) for name in names)
        yield from (p for p in paths if p.suffix.lower() in SUFFIXES and p.is_file())
    yield from closed


def walk(folder: str | os.PathLike[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Place, folders and files of a folder and all below it, sorted, as ``os.walk`` gives them.

    Links are followed, and no folder is entered twice, so that a link to one above it does no harm; what is
    hidden, and ``CLUTTER``, is left out.
    """
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        with contextlib.suppress(OSError):
            found = os.stat(place)
            if (found.st_dev, found.st_ino) in seen:
                folders.clear()
                continue
            seen.add((found.st_dev, found.st_ino))
        folders[:] = sorted(name for name in folders if not is_clutter(Path(name)))
        yield (
            place,
            folders,
            sorted(name for name in names if name[0] != "." and name not in CLUTTER),
        )


def _pattern(path: Path) -> str:
    """The path as a glob pattern, in which folders that exist as they are written mean themselves."""
    real = next(parent for parent in path.parents if parent.exists())
    return os.path.join(glob.escape(str(real)), path.relative_to(real))


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path, with ``~`` as the home folder where there is nothing called ``~…``.

    A shell leaves ``~`` alone where it does not begin a word, as in ``--images=~/pictures``.
    """
    given = Path(path)
    if str(given).startswith("~") and not given.exists():
        try:
            return given.expanduser()
        except RuntimeError:  # no such user
            return given
    return given


def is_clutter(path: Path) -> bool:
    """Whether a path below a folder leads through something hidden, or ``CLUTTER``."""
    return any(part.startswith(".") or part in CLUTTER for part in path.parts)


def unique_name(name: str, taken: set[str]) -> str:
    """The name, or the name with a number, so that no two are equal on any file system.

    Args:
        name: a file name, with or without folders.
        taken: names in use, case folded; the result is added.
    """
    stem, suffix = os.path.splitext(name)
    number = 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}_{number}{suffix}"
    taken.add(name.casefold())
    return name
