"""One pass over a data set's images that measures their values: in processes, cached, resumed."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from absl import logging

from jdet.atomic_files import plain, write_bytes
from jdet.data import passes
from jdet.data.reader import Reader
from jdet.data.sources.fingerprint import SAMPLES, fingerprint
from jdet.data.statistics import ImageStatistics
from jdet.data.tally import Tally, restored, tally
from jdet.types import DataError, Source

VERSION = 2
"""Of what is measured; results of another are measured again."""

CHUNK = 64
"""Images that are counted as one, whatever the number of processes: so the figures are the same to the last
digit."""

SAVE_EVERY, TELL_EVERY = 10.0, 15.0
"""Seconds."""


class Part(NamedTuple):
    """A chunk of images, counted.

    Attributes:
        tally: what was counted; None where no image could be read.
        unreadable: images that could not be read.
    """

    tally: Tally | None
    unreadable: int


class Counting(NamedTuple):
    """How the values of images are counted.

    Attributes:
        reader: of the images, as they are stored.
        invalid: value that stands for "nothing measured".
        limits: smallest and largest value expected.
    """

    reader: Reader
    invalid: float | None
    limits: tuple[float, float] | None

    def part(self, first: int) -> Part:
        """Counts the chunk of images that begins with image ``first``."""
        whole, unreadable = None, 0
        for index in range(first, min(first + CHUNK, len(self.reader))):
            element = self.reader[index]
            if element.image is None:
                unreadable += 1
                continue
            one = tally(element.image, self.invalid, self.limits)
            if whole is None:
                whole = one
            else:
                _add(whole, one, element.id)
        return Part(whole, unreadable)


def measure(
    source: Source,
    *,
    invalid: float | None = None,
    limits: tuple[float, float] | None = None,
    on_error: str = "raise",
    processes: int = 0,
    cache: str | os.PathLike[str] | None = None,
    notify: Callable[[str], None] = logging.info,
) -> ImageStatistics:
    """Measures the values of all images of a source.

    The result is kept in a folder under a name that stands for the data, and what was counted so far is
    saved on the way: a pass that was interrupted goes on where it stopped.

    Args:
        source: where the images come from.
        invalid: value that stands for "nothing measured"; NaN and infinity always do.
        limits: smallest and largest value expected; what lies outside is counted.
        on_error: "raise", or "skip" to leave out images that cannot be read.
        processes: that count; 0: as many as there are processors, where it takes long.
        cache: folder of the results; None: ``cache_folder()``.
        notify: told how far the pass is, every quarter of a minute.

    Raises:
        DataError: the source is empty, no image can be read, images differ in type or channels, or
            (``on_error="raise"``) one cannot be read.
    """
    if not len(source):
        raise DataError(f"{type(source).__name__}: the data set holds no images")
    folder = Path(cache) if cache is not None else cache_folder()
    counting = Counting(Reader(source, len(source), on_error), invalid, limits)
    decoder = counting.reader.decoder
    # What becomes of a file counts, but not what is found out by its values.
    settings = dataclasses.replace(decoder.settings, kind=None, invalid=None, value_range=())
    asked = VERSION, CHUNK, invalid, limits, on_error, decoder.kind[:3], settings
    name = f"{identity(source)}-{_digest(*asked)}"
    finished, partial = folder / f"{name}.json", folder / f"{name}.partial"
    if (known := _read(finished)) is not None:
        return known
    done, whole, unreadable = _resume(partial)
    if done:
        notify(f"measuring image values: going on after {done:,} of {len(source):,} images")
    started = saved = told = time.monotonic()
    before = done
    consistent = True  # not while a chunk is half added, where an interrupt may come as well

    def save() -> None:
        if whole is not None and consistent:
            _keep(lambda: write_bytes(partial, _packed(done, whole, unreadable)), folder)

    try:
        firsts = range(done, len(source), CHUNK)
        what = "measures image values (the same command goes on where it stopped)"
        for part in passes.results(counting, firsts, processes, what):
            consistent = False
            done = min(done + CHUNK, len(source))
            unreadable += part.unreadable
            if part.tally is not None:
                if whole is None:
                    whole = part.tally
                else:
                    _add(whole, part.tally, f"one of images {done - CHUNK} … {done - 1}")
            consistent = True
            now = time.monotonic()
            if now - saved > SAVE_EVERY and done < len(source):
                save()
                saved = now
            if now - told > TELL_EVERY and done < len(source):
                left = (now - started) / (done - before) * (len(source) - done)
                notify(
                    f"measuring image values: {done:,} of {len(source):,} images, {left:,.0f} s left"
                )
                told = now
    except BaseException:
        save()
        raise
    if whole is None:
        raise DataError(f"{type(source).__name__}: none of its {len(source)} images can be read")
    result = ImageStatistics.of(whole, unreadable)
    text = json.dumps(plain(result._asdict()), allow_nan=False)
    _keep(lambda: write_bytes(finished, text.encode()), folder)
    _keep(lambda: partial.unlink(missing_ok=True), folder)
    return result


def cache_folder() -> Path:
    """Where results are kept: ``jdet/image_statistics`` below $XDG_CACHE_HOME, or below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "jdet/image_statistics")


def identity(source: Source) -> str:
    """A name for the images of a source: another where one was replaced.

    It is made of the source's fingerprint, of the sizes and times of all files, and, of images that are no
    files, of the contents of some.
    """
    digest = hashlib.blake2b(fingerprint(source).encode(), digest_size=8)
    count = len(source)
    sample = sorted({i * count // SAMPLES for i in range(min(SAMPLES, count) and SAMPLES)})
    files = _files(source[0].image)
    for index in range(count) if files else sample:
        image = source[index].image
        if isinstance(image, np.ndarray):
            digest.update(repr((image.dtype.name, image.shape)).encode())
            digest.update(np.ascontiguousarray(image).tobytes())
        elif isinstance(image, bytes):
            digest.update(image)
        for file in _files(image):
            try:
                stat = os.stat(file)
            except OSError:
                continue
            digest.update(repr((stat.st_size, stat.st_mtime_ns)).encode())
    return digest.hexdigest()


def _files(image: Any) -> tuple[str, ...]:
    """The files of an image."""
    if isinstance(image, tuple | list):
        return tuple(image)
    return (image,) if isinstance(image, str) else ()


def _digest(*values: Any) -> str:
    return hashlib.blake2b(repr(values).encode(), digest_size=4).hexdigest()


def _add(whole: Tally, more: Tally, name: str) -> None:
    """Adds a tally to another of the same type and number of channels."""
    if type(more) is not type(whole) or _layout(more) != _layout(whole):
        raise DataError(
            f"{name}: its values are {_what(more)}, those of the images before it {_what(whole)}; all "
            "images of a set must have the same type and channels"
        )
    whole.add(more)


def _layout(one: Tally) -> tuple[int, ...]:
    return getattr(one, "counts", one.invalid).shape


def _what(one: Tally) -> str:
    figures = ImageStatistics.of(one)
    return f"{figures.dtype} in {len(figures.mean)} channel(s)"


# ------------------------------------------------------------------ files


def _packed(done: int, whole: Tally, unreadable: int) -> bytes:
    buffer = io.BytesIO()
    progress = np.array([done, unreadable])
    np.savez(buffer, allow_pickle=False, progress=progress, **whole.arrays())
    return buffer.getvalue()


def _resume(partial: Path) -> tuple[int, Tally | None, int]:
    """Images done, what was counted of them, and how many could not be read."""
    try:
        with np.load(io.BytesIO(partial.read_bytes()), allow_pickle=False) as stored:
            arrays = dict(stored)
        done, unreadable = map(int, arrays.pop("progress"))
        return done, restored(arrays), unreadable
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # none, or not one of ours
        return 0, None, 0


def _read(finished: Path) -> ImageStatistics | None:
    try:
        return ImageStatistics.from_json(json.loads(finished.read_text()))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _keep(write: Callable[[], None], folder: Path) -> None:
    """Changes the cache; a folder that takes nothing costs the next run a pass, not this one its life."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write()
    except OSError as error:
        logging.warning("image statistics are not kept in %s: %s", folder, error)
