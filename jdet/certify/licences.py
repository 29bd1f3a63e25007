"""The licences of the folders that hold a run's images: as the user states them, or as files there say."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jdet.types import ConfigError

NAMES = ("license", "licence", "copying", "copyright", "licenses", "licences")
"""Names of files that state a licence, in any case and with any ending of text."""

_SUFFIXES = ("", ".txt", ".md", ".rst")
_SHOWN = 200
"""Characters of a licence file's first line that are kept."""


def parse(given: Sequence[str]) -> dict[str, str]:
    """Folder and text of every ``--licence=FOLDER=TEXT``.

    Raises:
        ConfigError: there is no folder or no text in one.
    """
    found = {}
    for each in given:
        folder, _, text = each.partition("=")
        if not folder or not text.strip():
            raise ConfigError(
                f"--licence={each}; write --licence=FOLDER=TEXT, such as data=CC-BY-4.0"
            )
        found[folder] = text.strip()
    return found


def image_folders(files: Sequence[str]) -> list[str]:
    """The folders that hold image files, absolute, without those inside another one."""
    held = sorted({os.path.dirname(os.path.abspath(file)) for file in files})
    kept: list[str] = []
    for folder in held:
        if not kept or not f"{folder}/".startswith(f"{kept[-1].rstrip('/')}/"):
            kept.append(folder)
    return kept


def of_folders(
    folders: Sequence[str], roots: Sequence[str], stated: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The licence of every folder of images.

    Args:
        folders: of images, absolute.
        roots: folders of data sets; licence files count from one of these down to the images.
        stated: by folder what the user says of it and of all that is in it; the nearest counts.

    Returns:
        For each folder ``folder``, ``licence`` (None: nothing is known) and ``source``: "stated", or the
        path of the file that says so, whose SHA-256 is ``sha256``.

    Raises:
        ConfigError: a statement is of a folder that holds none of the images.
    """
    by_folder = {os.path.abspath(Path(name).expanduser()): text for name, text in stated.items()}
    for folder in by_folder:
        if not any(_inside(each, folder) for each in folders):
            known = ", ".join(folders) or "none: the images are made by the source"
            raise ConfigError(
                f"--licence={folder}=…: no image of the run lies there; name a folder with images in it "
                f"({known}), or one above"
            )
    return [_of_folder(folder, roots, by_folder) for folder in folders]


def _of_folder(folder: str, roots: Sequence[str], stated: Mapping[str, str]) -> dict[str, Any]:
    above = [str(each) for each in (Path(folder), *Path(folder).parents)]
    for each in above:
        if each in stated:
            return {"folder": folder, "licence": stated[each], "source": "stated"}
    tops = [os.path.abspath(root) for root in roots if _inside(folder, os.path.abspath(root))]
    for each in above:
        if each == folder or any(_inside(each, top) for top in tops):
            for path in sorted(Path(each).iterdir()) if os.path.isdir(each) else ():
                if path.stem.lower() in NAMES and path.suffix.lower() in _SUFFIXES:
                    return {"folder": folder, **_of_file(path)}
    return {"folder": folder, "licence": None, "source": None}


def _of_file(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); state the licence with --licence=FOLDER=TEXT"
        ) from error
    lines = (line.strip() for line in data.decode("utf-8", "replace").splitlines())
    first = next(filter(None, lines), "")[:_SHOWN]
    return {
        "licence": first or path.name,
        "source": str(path),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _inside(folder: str, top: str) -> bool:
    """Whether a folder is another one or lies in it; both absolute."""
    return f"{folder.rstrip('/')}/".startswith(f"{top.rstrip('/')}/")
