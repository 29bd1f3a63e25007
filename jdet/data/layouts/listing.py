"""What lies below a folder, listed once, and what a look at a few of the files tells of the rest."""

from __future__ import annotations

import functools
import mmap
import posixpath
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from jdet.data.find_images import walk
from jdet.data.image_formats import SUFFIXES
from jdet.data.layouts.path_index import PathIndex

LOOKS = 24
"""Files of one kind that are opened to tell what they are."""


class Listing:
    """All files below a folder but hidden ones and clutter; links are followed, each folder once.

    Attributes:
        root: the folder.
        files: paths below it with forward slashes, sorted.
    """

    def __init__(self, root: Path):
        self.root = root
        self.files: list[str] = []
        base = str(root)
        for place, _, names in walk(root):
            below = place[len(base) :].replace("\\", "/").strip("/")
            self.files += (f"{below}/{name}" if below else name for name in names)
        self.files.sort()

    @functools.cached_property
    def _by_suffix(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in self.files:
            found.setdefault(posixpath.splitext(path)[1].lower(), []).append(path)
        return found

    def of(self, *suffixes: str) -> list[str]:
        """The files with one of these extensions, in any case, sorted."""
        return sorted(path for suffix in suffixes for path in self._by_suffix.get(suffix, ()))

    def counts(self) -> Counter[str]:
        """Extension → number of files."""
        return Counter({suffix: len(paths) for suffix, paths in self._by_suffix.items()})

    @functools.cached_property
    def images(self) -> list[str]:
        """The files that are images by their extension, sorted."""
        return self.of(*SUFFIXES)

    @functools.cached_property
    def image_index(self) -> PathIndex:
        """The images by name."""
        return PathIndex(self.images)

    def path(self, below: str) -> str:
        """Where a file is."""
        return f"{self.root}/{below}"

    def single(self, suffix: str) -> list[str]:
        """Files with an extension that an image has too: labels of that image, one file for each."""
        return [path for path in self.of(suffix) if self.image_index.has_stem(path)]

    def likely(self, suffix: str, is_kind: Callable[[Path], bool]) -> list[str]:
        """Files with an extension that are of a kind.

        Of those that belong to one image each, all are where some of a few are: ten thousand of them need
        not be opened to be counted. Others are looked at one by one.
        """
        single = set(self.single(suffix))
        some = sample(sorted(single))
        looked = [path for path in some if is_kind(self.root / path)]
        others = [
            path for path in self.of(suffix) if path not in single and is_kind(self.root / path)
        ]
        return sorted([*others, *(single if looked else ())])


def sample(paths: Sequence[str]) -> list[str]:
    """A few of many, from all over."""
    return (
        [paths[place * len(paths) // LOOKS] for place in range(LOOKS)]
        if len(paths) > LOOKS
        else list(paths)
    )


def holds(*keys: bytes) -> Callable[[Path], bool]:
    """A test for files that hold all of some texts, such as keys of JSON; nothing is parsed."""

    def test(path: Path) -> bool:
        try:
            if not path.stat().st_size:
                return False
            with (
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
            ):
                if b"\0" in text[:64]:  # UTF-16
                    plain = text[:].replace(b"\0", b"")
                    return all(key in plain for key in keys)
                return all(text.find(key) >= 0 for key in keys)
        except OSError:
            return False

    return test
