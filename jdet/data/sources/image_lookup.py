"""Where an image lies that a label file names, however the tool that wrote it spells paths."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from pathlib import Path

from jdet.data.find_images import is_clutter
from jdet.data.image_formats import SUFFIXES
from jdet.data.layouts.listing import Listing
from jdet.data.layouts.path_index import spellings


class ImageLookup:
    """Finds images below a folder, from one listing per folder: quicker than 100,000 look-ups."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._alike: dict[str, dict[str, list[str]]] = {}
        self._below: dict[str, Listing] = {}

    def exact(self, root: str, name: str) -> str:
        """The path of a file that is called just so below ``root``; "" where there is none."""
        path = os.path.join(root, name)
        folder, last = os.path.split(path)
        return path if last in self._list(folder) else ""

    def find(self, root: str, name: str) -> str:
        """The path of the file that is meant, below ``root``; "" where there is none.

        Slashes for backslashes and percent signs decoded, without leading folders, a drive or an address;
        then likewise but for case, accents written as two characters, and an extension that is left out.
        The first that is found counts.
        """
        written = list(spellings(name))
        for spelling in written:
            if path := self.exact(root, spelling):
                return path
        for spelling in written:
            folder, last = os.path.split(os.path.join(root, spelling))
            alike = self._list_alike(folder).get(_key(last), [])
            if len(alike) == 1:
                return os.path.join(folder, alike[0])
        return ""

    def anywhere(self, root: str, name: str, near: str) -> str:
        """As ``find``, in any folder below ``root`` (``PathIndex.find``), for what is nowhere else.

        Raises:
            DataError: several files are as likely.
        """
        if root not in self._below:
            self._below[root] = Listing(Path(root))
        below = self._below[root]
        found = below.image_index.find(name, near)
        return found and below.path(found)

    def _list(self, folder: str) -> set[str]:
        if folder not in self._names:
            try:
                self._names[folder] = set(os.listdir(folder or "."))
            except OSError:
                self._names[folder] = set()
        return self._names[folder]

    def _list_alike(self, folder: str) -> dict[str, list[str]]:
        """The images of a folder by ``_key``, with and without extension."""
        if folder not in self._alike:
            alike = self._alike[folder] = defaultdict(list)
            for name in sorted(self._list(folder)):
                stem, extension = os.path.splitext(name)
                if extension.lower() in SUFFIXES and not is_clutter(Path(name)):
                    for key in {_key(name), _key(stem)}:
                        alike[key].append(name)
        return self._alike[folder]


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
