"""Several files that make one image: ``{stem}_rgb.png + {stem}_depth.png``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from jdet.data.image_formats import SUFFIXES
from jdet.types import require

STEM = "{stem}"


class FilePattern:
    """The names of the files of an image, in the order of their channels.

    Folders may be part of the names: ``rgb/{stem}.png + depth/{stem}.tif``. They are relative to the folder
    of the images.

    Attributes:
        parts: the names, each with ``{stem}`` once.
    """

    def __init__(self, text: str) -> None:
        """Reads a pattern.

        Raises:
            ConfigError: a name lacks ``{stem}``, has it twice, or is empty.
        """
        self.parts = tuple(part.strip() for part in text.split("+"))
        require(
            all(part.count(STEM) == 1 for part in self.parts)
            and len(set(self.parts)) == len(self.parts),
            "config.data.image.files",
            text,
            "file names joined by +, each with {stem} once, such as {stem}_rgb.png + {stem}_depth.png",
        )
        self._pattern = [
            re.compile("(.+)".join(map(re.escape, part.split(STEM)))) for part in self.parts
        ]

    def names(self, name: str) -> tuple[str, ...]:
        """The files of an image.

        Args:
            name: of any of its files, or its stem, with or without an extension and folders, as label files
                have it: ``a1_rgb.png``, ``a1.png``, ``a1``.
        """
        stem = self.stem(name)
        if stem is None:
            cut, suffix = os.path.splitext(name)
            stem = cut if suffix.lower() in SUFFIXES else name
        return tuple(part.replace(STEM, stem) for part in self.parts)

    def stem(self, name: str) -> str | None:
        """The stem of a file that is called like one of the parts; None: it is not.

        The shortest where it is called like several: ``{stem}.png + {stem}_depth.png`` and ``a_depth.png``.
        """
        found = [match[1] for pattern in self._pattern if (match := pattern.fullmatch(name))]
        return min(found, key=len, default=None)

    def groups(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Stem → the files of its image, of all stems that one of the names belongs to.

        The names may begin with folders that the pattern does not have; these belong to the stem's image
        then. Files of an image that are not among the names are listed all the same.
        """
        found: dict[str, tuple[str, ...]] = {}
        for name in names:
            levels = name.split("/")
            for first in range(len(levels)):
                stem = self.stem("/".join(levels[first:]))
                if stem is not None and "/" not in stem:
                    below = "/".join(levels[:first])
                    whole = f"{below}/{stem}" if below else stem
                    parts = (part.replace(STEM, stem) for part in self.parts)
                    found[whole] = tuple(f"{below}/{part}" if below else part for part in parts)
                    break
        return found


def derived(files: Sequence[Sequence[str]]) -> str:
    """The pattern that lists of files follow; "" where they follow none.

    Args:
        files: of several images, such as ``[("A01_w1.png", "A01_w2.png"), ("A04_w1.png", "A04_w2.png")]``,
            of which ``{stem}_w1.png + {stem}_w2.png`` comes out.
    """
    if not files or len(files[0]) < 2 or any("+" in name for name in files[0]):
        return ""
    shared = os.path.commonprefix(list(files[0]))
    # The names of an image may share more than its stem: "a_w1.png" and "a_w2.png" share "a_w".
    ends = [end for end in range(len(shared) - 1, 0, -1) if shared[end] in "_-."]
    for end in (*ends, len(shared)):
        tails = [name[end:] for name in files[0]]
        if end and all(_fits(names, tails) for names in files):
            return " + ".join(STEM + tail for tail in tails)
    return ""


def _fits(names: Sequence[str], tails: Sequence[str]) -> bool:
    if len(names) != len(tails) or not names[0].endswith(tails[0]):
        return False
    stem = names[0][: len(names[0]) - len(tails[0])]
    return bool(stem) and all(name == stem + tail for name, tail in zip(names, tails))
