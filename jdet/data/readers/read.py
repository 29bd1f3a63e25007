"""Any file, or several of them, as the values that are in it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from jdet.data.image_formats import LFS_POINTER, diagnosis
from jdet.data.readers import dicom, numpy_file, tiff
from jdet.data.readers.opencv import decode_native
from jdet.data.readers.regular_file import open_regular
from jdet.data.readers.settings import ImageSettings
from jdet.data.readers.stored import Stored
from jdet.types import DataError

Image = Any
"""What ``Example.image`` may be: a path, several paths, encoded bytes, or an array."""


def name_of(image: Image) -> str:
    """What to call an image in messages where nothing else is known."""
    if isinstance(image, (tuple, list)):
        return " + ".join(map(os.fspath, image))
    if isinstance(image, np.ndarray):
        return "image given as an array"
    return "image given as bytes" if isinstance(image, bytes) else os.fspath(image)


def load(image: str | os.PathLike | bytes, name: str) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: it is missing or empty.
    """
    data = image if isinstance(image, bytes) else _from_disk(image, name)
    if not data:
        raise DataError(f"{name}: the file is empty")
    return data


def _from_disk(path: str | os.PathLike, name: str) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})") from error


def decode_any(data: bytes, name: str, settings: ImageSettings) -> Stored:
    """The values of an encoded image.

    Raises:
        DataError: it is truncated, corrupt, no image, or needs an extra that is not installed.
    """
    if data.startswith(tiff.MAGIC):
        return tiff.read_tiff(data, name, palette=settings.palette)
    if data.startswith((numpy_file.NPY, numpy_file.NPZ)):
        return numpy_file.read_numpy(data, name)
    if dicom.is_dicom(data):
        return dicom.read_dicom(data, name, palette=settings.palette)
    if data.startswith(LFS_POINTER):
        raise DataError(f"{name}: {diagnosis(data)}")
    return decode_native(data, name, palette=settings.palette)


def read_stored(image: Image, name: str, settings: ImageSettings) -> Stored:
    """The values of an image, of all its files, and of these the bands that are wanted.

    Args:
        image: as ``Example.image``.
        name: for messages.
        settings: of which the palette, and bands, alpha and high byte count.

    Raises:
        DataError: a file cannot be read, files differ in size, or a band does not exist.
    """
    if isinstance(image, np.ndarray):
        stored = numpy_file.from_array(image, name)
    elif isinstance(image, (tuple, list)):
        stored = _together(image, settings)
    else:
        stored = decode_any(load(image, name), name, settings)
    if settings.high_byte and stored.pixels.dtype == np.uint16:
        stored = stored._replace(pixels=(stored.pixels >> 8).astype(np.uint8))
    return _chosen(stored, settings.bands, name) if settings.bands else stored


def _together(paths: Any, settings: ImageSettings) -> Stored:
    """The channels of several files of one size, in a type that holds the values of all."""
    parts = []
    for path in paths:
        part = decode_any(load(path, os.fspath(path)), os.fspath(path), settings)
        if part.alpha and settings.alpha == "refuse" and not part.opaque:
            raise DataError(f"{os.fspath(path)}: {ALPHA}")
        parts.append(part.without_alpha())
    sizes = [part.pixels.shape[:2] for part in parts]
    if len(set(sizes)) > 1:
        listed = ", ".join(f"{p} {width}x{height}" for p, (height, width) in zip(paths, sizes))
        raise DataError(
            f"the files of an image differ in size ({listed}); they must show the same pixels"
        )
    if len(parts) == 1:
        return parts[0]
    return Stored(np.concatenate([part.pixels for part in parts], axis=2))


ALPHA = (
    "it has an alpha channel that is not opaque; drop it with --config.data.image.alpha=drop, or take it "
    "as a channel by the number of all, --config.data.image.channels=4"
)


def _chosen(stored: Stored, bands: tuple[int, ...], name: str) -> Stored:
    count = stored.pixels.shape[2]
    if max(bands) >= count:
        raise DataError(
            f"{name}: config.data.image.bands={bands}, but the image has {count} channels, 0 … {count - 1}"
        )
    pixels = np.ascontiguousarray(stored.pixels[..., list(bands)])
    return Stored(pixels, stored.colour and bands == (0, 1, 2))
