"""The pass over the pixels: every image is read once, in processes where that takes long."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from jdet.data import passes
from jdet.data.image_io import orientation
from jdet.data.invalid import filled
from jdet.data.measure import CHUNK, TELL_EVERY
from jdet.data.reader import Reader
from jdet.data.statistics import ImageStatistics
from jdet.data.tally import Tally, tally
from jdet.data.transforms import resample
from jdet.doctor.splits import Split

PATCH = 32
"""Side of the small grey copy of each image, pixels."""

_MOST = 99.0
"""Percentile of a small copy that becomes white; 100 less it becomes black."""


class Pixels(NamedTuple):
    """What was seen of the images of a split.

    Attributes:
        problems: why each cannot be used; "" where it can.
        digests: bytes that are equal where all values and the size are.
        patches: uint8 [n, PATCH, PATCH], small grey copies, stretched; zeros where there are none.
        constant: bool [n], all values of an image are equal.
        empty: bool [n], no value of an image was measured.
        turned: bool [n], an EXIF tag turns it.
        statistics: of all values together; None where no image could be read.
    """

    problems: list[str]
    digests: list[bytes]
    patches: np.ndarray
    constant: np.ndarray
    empty: np.ndarray
    turned: np.ndarray
    statistics: ImageStatistics | None


class _Part(NamedTuple):
    rows: list[tuple[str, bytes, np.ndarray, bool, bool, bool]]
    tally: Tally | None


class Scanning(NamedTuple):
    """What is done to each image of a split.

    Attributes:
        reader: of the images, as they are stored.
        invalid: value that stands for "nothing measured".
    """

    reader: Reader
    invalid: float | None

    def part(self, first: int) -> _Part:
        """Looks at the images of the chunk that begins with image ``first``."""
        rows, whole = [], None
        for index in range(first, min(first + CHUNK, len(self.reader))):
            element = self.reader[index]
            image = element.image
            if image is None or not image.size:
                blank = np.zeros((PATCH, PATCH), np.uint8)
                rows.append(
                    (element.problem or "it has no pixels", b"", blank, False, False, False)
                )
                continue
            counted = tally(image, self.invalid)
            turned = orientation(self.reader.source[index].image) != 1
            digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
            digest.update(np.ascontiguousarray(image).data)
            flags = bool(counted.constant), bool(counted.empty), turned
            rows.append(("", digest.digest(), patch_of(image, self.invalid), *flags))
            if whole is None:
                whole = counted
            else:
                whole.add(counted)
        return _Part(rows, whole)


def scan(
    split: Split, invalid: float | None, processes: int, notify: Callable[[str], None]
) -> Pixels:
    """Reads all images of a split.

    Args:
        split: whose images.
        invalid: value that stands for "nothing measured".
        processes: that read; 0: as many as there are processors, where it takes long.
        notify: told how far it is, every quarter of a minute.
    """
    count = len(split.ids)
    task = Scanning(Reader(split.source, count, "skip"), invalid)
    rows, whole = [], None
    started = told = time.monotonic()
    for part in passes.results(task, range(0, count, CHUNK), processes, "reads images"):
        rows += part.rows
        if part.tally is not None:
            if whole is None:
                whole = part.tally
            else:
                whole.add(part.tally)
        now = time.monotonic()
        if now - told > TELL_EVERY and len(rows) < count:
            left = (now - started) / len(rows) * (count - len(rows))
            notify(f"{split.name}: {len(rows):,} of {count:,} images read, {left:,.0f} s left")
            told = now
    problems, digests, patches, constant, empty, turned = zip(*rows) if rows else ((),) * 6
    return Pixels(
        problems=list(problems),
        digests=list(digests),
        patches=np.array(patches, np.uint8).reshape(-1, PATCH, PATCH),
        constant=np.array(constant, bool),
        empty=np.array(empty, bool),
        turned=np.array(turned, bool),
        statistics=None if whole is None else ImageStatistics.of(whole, sum(map(bool, problems))),
    )


def grey_of(image: np.ndarray, side: int, invalid: float | None) -> np.ndarray:
    """The mean of the channels of an image, float32 [side, side], whatever its proportions."""
    values = filled(image, invalid, (0.0,) * image.shape[2])
    small = resample.resize(values.astype(np.float32, copy=False), side, side, cv2.INTER_AREA)
    return small.mean(2)


def patch_of(image: np.ndarray, invalid: float | None) -> np.ndarray:
    """The small grey copy of an image, uint8 [PATCH, PATCH], stretched to all values."""
    small = grey_of(image, PATCH, invalid)
    low, high = np.percentile(small, (100 - _MOST, _MOST))
    if not high > low:
        return np.zeros((PATCH, PATCH), np.uint8)
    return np.clip(np.rint((small - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
