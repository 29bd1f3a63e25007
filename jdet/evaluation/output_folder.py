"""The folder of a prediction's results: what may be one, what an earlier prediction left there, names."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jdet.atomic_files import FULL, what_is_full, write_json
from jdet.data.find_images import unique_name
from jdet.evaluation.results import DETECTIONS, IMAGES
from jdet.types import ConfigError

MAKER = "jdet.predict"
"""How the description in ``images.json`` begins, by which the results of predictions are known."""

_LONGEST = 255  # bytes of a file's name
_CUT = 240  # to which longer ones are cut, so that a number fits behind
_EVERYWHERE = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENODEV, errno.ESTALE)
_DRAWN = (".jpg", ".jpeg", ".png")


class OutputFolder:
    """Where a prediction writes.

    Attributes:
        path: of the folder.
        images: folder of the drawn images, below it; nothing in it is an input.
    """

    def __init__(self, path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]]):
        """Looks at the folder without changing anything.

        Args:
            path: of the folder, which may not exist yet.
            inputs: files and folders in which images are looked for.

        Raises:
            ConfigError: drawn images would come among images that are no results of a prediction.
        """
        self.path = Path(path).expanduser()
        self.images = self.path / "images"
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"--out={self.path} is a file; name a folder")
        own = self._earlier() is not None
        remedy = f"name another folder, such as --out={shlex.quote(str(self.path / 'predictions'))}"
        drawn = self.images.resolve()
        for given in inputs:
            if Path(given).exists() and Path(given).resolve().is_relative_to(drawn):
                what = "an earlier prediction drew" if own else "would be mixed with drawn ones"
                raise ConfigError(
                    f"--images={given} lies in {self.images}, where images {what}; {remedy}"
                )
        if not own and self.images.is_dir() and any(self.images.iterdir()):
            raise ConfigError(
                f"{self.images} holds files that are no results of a prediction, and drawn images "
                f"would come among them; {remedy}"
            )

    def _earlier(self) -> dict[str, Any] | None:
        """``images.json`` of an earlier prediction; None where there is none."""
        try:
            index = json.loads((self.path / IMAGES).read_text(encoding="utf-8"))
            return index if index["info"]["description"].startswith(MAKER) else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def check_writable(self) -> None:
        """Makes the folder and writes to it, before anything is detected in vain.

        Raises:
            ConfigError: it cannot be written, or is full.
        """
        try:
            self.images.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.images):
                with tempfile.TemporaryFile(dir=folder) as file:
                    file.write(bytes(1 << 16))
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise self.refused(error) from error

    def refused(self, error: OSError) -> ConfigError:
        """What to say, and do, where the folder does not take more."""
        if error.errno in FULL:
            return ConfigError(f"--out: {what_is_full(error, self.path)}, or name another folder")
        return ConfigError(
            f"--out={self.path} cannot be written ({error.strerror or error}); name a folder that can, "
            f"such as --out={shlex.quote(str(Path(tempfile.gettempdir()) / 'predictions'))}"
        )

    def begin(self, targets: Sequence[str]) -> None:
        """Removes the results of an earlier prediction and notes which images this one will draw.

        Args:
            targets: of the files, from ``drawn_names``.
        """
        for name in self._drawn_before():
            old = self.images / name
            if old.resolve().is_relative_to(self.images.resolve()):
                old.unlink(missing_ok=True)
        for folder, _, _ in os.walk(self.images, topdown=False):
            if folder != str(self.images):
                with contextlib.suppress(OSError):  # it holds something else
                    os.rmdir(folder)
        (self.path / DETECTIONS).unlink(missing_ok=True)
        info = {"description": f"{MAKER}, begun and not ended"}
        write_json(self.path / IMAGES, {"info": info, "drawn": list(targets), "images": []})

    def _drawn_before(self) -> list[str]:
        earlier = self._earlier() or {}
        names = [image["file_name"] for image in earlier.get("images", ())]
        return earlier.get("drawn", drawn_names(names))

    def is_lost(self, error: Exception) -> OSError | None:
        """The system's error where writing an image failed as writing any would."""
        cause = error if isinstance(error, OSError) else error.__cause__
        return cause if isinstance(cause, OSError) and cause.errno in _EVERYWHERE else None


def drawn_names(names: Iterable[str]) -> list[str]:
    """Where the drawn image of each file goes, below the folder of images.

    Args:
        names: of the files, with forward slashes.

    Returns:
        Paths with the same folders, in a format that is drawn in, no two equal, and short enough for
        file systems: a name of 252 bytes has no room for another suffix.
    """
    taken: set[str] = set()
    targets = []
    for name in names:
        target = PurePosixPath(name)
        if target.suffix.lower() not in _DRAWN:
            target = target.with_name(f"{target.name}.jpg")
        unique = unique_name(_shortened(target, _LONGEST), taken)
        if len(os.fsencode(PurePosixPath(unique).name)) > _LONGEST:
            unique = unique_name(_shortened(target, _CUT), taken)
        targets.append(unique)
    return targets


def _shortened(target: PurePosixPath, longest: int) -> str:
    """The path, its name cut before the suffix to ``_CUT`` bytes where it has more than ``longest``."""
    if len(os.fsencode(target.name)) > longest:
        stem = target.stem
        while len(os.fsencode(stem + target.suffix)) > _CUT:
            stem = stem[:-1]
        target = target.with_name(stem + target.suffix)
    return target.as_posix()
