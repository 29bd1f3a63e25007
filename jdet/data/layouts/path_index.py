"""Finds the file that a label file means among all there are, however the tool that wrote it spells it."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import unquote

from jdet.data.image_formats import SUFFIXES
from jdet.data.layouts.words import split_of
from jdet.types import DataError

_EXTENSIONS = {*SUFFIXES, ".txt", ".json", ".xml"}


def stem_of(name: str) -> str:
    """A name without the extension of an image or a label file; ``2024.05.01`` has none."""
    stem, extension = posixpath.splitext(name)
    return stem if extension.lower() in _EXTENSIONS else name


class PathIndex:
    """Files by name, for look-ups that touch no disk.

    Args:
        paths: below one folder, with forward slashes.
    """

    def __init__(self, paths: Iterable[str]):
        self._paths = set(paths)
        self._names: dict[str, list[str]] = defaultdict(list)
        self._stems: dict[str, list[str]] = defaultdict(list)
        for path in sorted(self._paths):
            last = posixpath.basename(path)
            self._names[_key(last)].append(path)
            self._stems[_key(stem_of(last))].append(path)
        written = {posixpath.dirname(path) for path in self._paths}
        self._splits = {split_of(folder) for folder in written}
        self._folders = {_key(above) for folder in written for above in _and_above(folder)}

    def has_stem(self, path: str) -> bool:
        """Whether any file is called like this one but for folder, extension and case."""
        return _key(stem_of(posixpath.basename(path))) in self._stems

    def written(self, name: str, near: str) -> str:
        """The file that a name with its folders means, as ``find``; "" where that is a guess."""
        for spelling in spellings(name):
            if spelling == name or "/" in spelling or "/" not in name.replace("\\", "/"):
                for base in (near, ""):
                    path = posixpath.normpath(posixpath.join(base, spelling))
                    if path in self._paths:
                        return path
        return ""

    def find(self, name: str, near: str, split: str = "", only: bool = False) -> str:
        """The file that is meant.

        What is written counts, below ``near`` or below the whole; then the same with slashes for
        backslashes, percent signs decoded and without leading folders; then a file of that name in any
        folder, and one of that name but for case, accents written as two characters and extension. Of
        several in folders the one whose folders are most like those that are written, then most like
        ``near``. A file in a folder of another split is not meant, and where the folder that is written
        exists none outside it.

        Args:
            name: as the label file has it, with or without folders and extension.
            near: folder of the label file.
            split: of the image, where something says; of several files one in a folder of it is meant.
            only: where there are folders of ``split``, those of others are out of the question.

        Returns:
            The path; "" where there is none.

        Raises:
            DataError: several are as likely.
        """
        wanted, below = name, ""
        for spelling in spellings(name):
            for base in (near, ""):
                path = posixpath.normpath(posixpath.join(base, spelling))
                if path in self._paths:
                    return path
                folder = posixpath.dirname(path)
                if not below and posixpath.dirname(spelling) not in ("", "."):
                    below = folder if _key(folder) in self._folders else ""
            wanted = spelling
        of_split = split_of(near) or (split if only and split in self._splits else "")
        inside = _key(f"{below}/") if below else ""
        last = posixpath.basename(wanted)
        folders = posixpath.dirname(name.replace("\\", "/"))
        for found in (
            self._names.get(_key(last)),
            self._stems.get(_key(last)),
            self._stems.get(_key(stem_of(last))),
        ):
            fitting = [
                path
                for path in found or ()
                if not _other_split(path, of_split) and _key(path).startswith(inside)
            ]
            exact = [path for path in fitting if _same_name(path, last)]
            if fitting:
                return _nearest(exact or fitting, name, folders, near, split)
        return ""


def _and_above(folder: str) -> Iterator[str]:
    while folder:
        yield folder
        folder = posixpath.dirname(folder)


def _same_name(path: str, last: str) -> bool:
    own = posixpath.basename(path)
    return last in (own, stem_of(own))


def most_alike(paths: Sequence[str], folder: str) -> list[str]:
    """The paths whose folders are most like another: begin as it does, then have most names in common."""
    own = folder.split("/")

    def alike(path: str) -> tuple[int, int]:
        folders = posixpath.dirname(path).split("/")
        return len(os.path.commonprefix([folders, own])), len(set(folders) & set(own))

    best = max(map(alike, paths), default=None)
    return [path for path in paths if alike(path) == best]


def _nearest(paths: list[str], name: str, folders: str, near: str, split: str) -> str:
    """The path whose folders are most like what is written, from the last on; of these one in a folder of
    the split, and most like ``near``.
    """
    written = folders.split("/")[::-1]

    def ends(path: str) -> int:
        return len(os.path.commonprefix([posixpath.dirname(path).split("/")[::-1], written]))

    longest = max(map(ends, paths))
    alike = [path for path in paths if ends(path) == longest]
    of_split = [path for path in alike if split and split_of(posixpath.dirname(path)) == split]
    likely = most_alike(of_split or alike, near)
    if len(likely) > 1:
        raise DataError(
            f"{name!r} may be any of {', '.join(likely[:3])}; write it with its folder, or keep "
            "the labels of "
            "each folder of images in a folder of their own"
        )
    return likely[0]


def _other_split(path: str, wanted: str) -> bool:
    own = split_of(posixpath.dirname(path))
    return bool(own and wanted and own != wanted) and "trainval" not in (own, wanted)


def _key(name: str) -> str:
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", name).casefold()


def spellings(name: str) -> Iterator[str]:
    """Paths to look for, relative ones but for the first, the longest first."""
    yield name
    written = name.replace("\\", "/")
    for text in dict.fromkeys((written, unquote(written))):
        parts = text.rpartition("?d=")[2].split(
            "/"
        )  # Label Studio: /data/local-files/?d=images/a.jpg
        for first in range(len(parts)):
            if parts[first] not in ("", "."):
                yield "/".join(parts[first:])
