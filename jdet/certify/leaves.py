"""The digests of a data set, image by image: of its bytes, and of what is known of its objects.

What counts is what training and evaluation get: the bytes of the image file, or of all files of an image,
or its values where a source makes them; and the objects as the source hands them out, masks and the
objects as labelled included. Where files lie, and what nobody reads of a label file, does not count.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdet.certify import merkle
from jdet.data.readers.regular_file import open_regular
from jdet.types import Example, Source

ABSENT = "absent"
"""Stands for the digest of an image whose file cannot be read."""

_THREADS = 8
_BLOCK = 1 << 20


class Leaf(NamedTuple):
    """An image of a data set.

    Attributes:
        id: its name in the source.
        image: SHA-256 of its files, or ``ABSENT``.
        labels: SHA-256 of its objects.
        objects: their number.
        files: of the image, for messages; none where a source makes it.
    """

    id: str
    image: str
    labels: str
    objects: int
    files: tuple[str, ...] = ()


def leaves(source: Source) -> list[Leaf]:
    """The leaves of a data set, in its own order: batches are drawn by place.

    Raises:
        DataError: the source cannot read a label.
    """
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(lambda index: _leaf(source[index]), range(len(source))))


def root(found: Sequence[Leaf]) -> str:
    """The Merkle root of a data set."""
    return merkle.root(
        json.dumps([place, leaf.id, leaf.image, leaf.labels]).encode()
        for place, leaf in enumerate(found)
    )


def _leaf(example: Example) -> Leaf:
    image: Any = example.image  # all that ``jdet.data.readers.read`` takes
    files: tuple[str, ...] = ()
    if isinstance(image, np.ndarray):
        digest = _of_arrays([image])
    elif isinstance(image, bytes):
        digest = hashlib.sha256(image).hexdigest()
    else:
        files = tuple(map(os.fspath, image if isinstance(image, (tuple, list)) else [image]))
        digest = _of_files(files)
    return Leaf(example.id, digest, _of_labels(example), len(example.boxes), files)


def _of_files(paths: Iterable[str]) -> str:
    whole = hashlib.sha256()
    for path in paths:
        one = hashlib.sha256()
        try:
            with open_regular(path) as file:  # a label may name a device, which never ends
                while block := file.read(_BLOCK):
                    one.update(block)
        except OSError:
            return ABSENT
        whole.update(one.digest())
    return whole.hexdigest()


def _of_arrays(arrays: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype.newbyteorder('<').str}{array.shape}".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def _of_labels(example: Example) -> str:
    official = example.official
    columns = [example.boxes, example.labels, example.ignore, example.areas]
    if official is not None:
        columns += [official.xywh, official.labels, official.ignore, official.areas]
    masks = [example.masks, official and official.masks]
    text = json.dumps(masks, default=_plain, sort_keys=True)
    return hashlib.sha256((_of_arrays(columns) + text).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """What JSON lacks in masks: arrays, numbers of NumPy and the bytes of run lengths."""
    return value.decode("latin-1") if isinstance(value, bytes) else value.tolist()
