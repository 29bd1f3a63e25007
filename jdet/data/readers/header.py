"""What an image file holds, by its first bytes: channels, type, size; no values are decoded."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import struct
from typing import BinaryIO, NamedTuple

import numpy as np

from jdet.data.readers import dicom, numpy_file, tiff
from jdet.data.readers.opencv import has_alpha
from jdet.data.readers.read import decode_any
from jdet.data.readers.regular_file import open_regular
from jdet.data.readers.settings import ImageSettings

HEAD = 1 << 16
"""Bytes in which the header of most files lies."""


class Header(NamedTuple):
    """What a file says of itself.

    Attributes:
        channels: alpha included.
        dtype: of the values as they are read.
        colour: the first three channels are red, green and blue.
        alpha: the last channel is the opacity.
        palette: the colours are looked up in a table.
    """

    channels: int
    dtype: str
    colour: bool
    alpha: bool = False
    palette: bool = False


_PNG = {0: (1, False), 2: (3, False), 3: (3, False), 4: (2, True), 6: (4, True)}
"""PNG's colour type: channels that come out, and whether one is alpha, where no colour is transparent."""


def header_of(image: str | os.PathLike | bytes) -> Header | None:
    """The header of a file; None where it cannot be told without decoding, or the file is broken."""
    try:
        if isinstance(image, bytes):
            return _parse(image)
        with open_regular(image) as file:
            head = file.read(64)
            if head.startswith(tiff.MAGIC):
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                    return _of_tiff(mapped)
            if head.startswith(b"\x89PNG"):
                return _of_png(file, head)
            head += file.read(HEAD)
        return _parse(head)
    except Exception:  # of many kinds, by what is broken; decoding it says what
        return None


def _parse(data: bytes) -> Header | None:
    if data.startswith(b"\x89PNG"):
        return _of_png(io.BytesIO(data), data)
    if data.startswith(b"\xff\xd8"):
        components = _jpeg_components(data)
        return (
            None
            if components is None
            else Header(1 if components == 1 else 3, "uint8", components > 1)
        )
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        alpha = has_alpha(data)
        return Header(3 + alpha, "uint8", True, alpha)
    if data.startswith(b"GIF8"):
        return Header(3, "uint8", True, palette=True)
    if data.startswith(tiff.MAGIC):
        return _of_tiff(data)
    if data.startswith(numpy_file.NPY):
        return _of_array(*numpy_file.read_header(io.BytesIO(data)))
    return None


def _of_png(file: BinaryIO, head: bytes) -> Header | None:
    if head[12:16] != b"IHDR":
        return None
    kind = head[25]
    channels, alpha = _PNG[kind]
    if kind in (2, 3) and _transparent(file):
        channels, alpha = 4, True
    dtype = "uint16" if head[24] == 16 else "uint8"
    return Header(channels, dtype, channels >= 3, alpha, kind == 3)


def _transparent(file: BinaryIO) -> bool:
    """Whether colours of a PNG are transparent: a chunk tRNS comes before its pixels."""
    place = 8
    while True:
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind in (b"tRNS", b"IDAT", b"IEND"):
            return kind == b"tRNS"
        place += 12 + length


def _jpeg_components(data: bytes) -> int | None:
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[position + 9]
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def _of_tiff(data: bytes | mmap.mmap) -> Header | None:
    found = tiff.pages(data)
    if not found or found[0].dtype is None or found[0].images > len(found):
        return None
    page = found[0]
    channels = page.channels * len(found)
    alone = len(found) == 1
    dtype = "uint8" if page.bits <= 8 and page.format == "uint" else str(page.dtype)
    return Header(
        channels, dtype, page.colour and alone, page.alpha and alone, page.photometric == 3
    )


def _of_array(shape: tuple[int, ...], dtype: np.dtype) -> Header | None:
    if len(shape) not in (2, 3) or dtype.kind not in "biuf":
        return None
    channels = (
        1 if len(shape) == 2 else min(shape[0], shape[2]) if shape[0] < shape[2] else shape[2]
    )
    colour = dtype == np.uint8 and channels in (3, 4)
    return Header(channels, str(dtype), colour, colour and channels == 4)


def scientific(data: bytes) -> bool:
    """Whether a file begins as TIFF, NPY, NPZ or DICOM."""
    return data.startswith((*tiff.MAGIC, numpy_file.NPY, numpy_file.NPZ)) or dicom.is_dicom(data)


def size_of(data: bytes, name: str) -> tuple[int, int]:
    """Height and width of a TIFF, NPY, NPZ or DICOM file; decoded where its header does not say.

    Raises:
        DataError: it cannot be read.
    """
    if data.startswith(tiff.MAGIC):
        with contextlib.suppress(ValueError, IndexError):  # decoding it says what is wrong
            return tiff.pages(data)[0].upright_size
    height, width, _ = decode_any(data, name, ImageSettings()).pixels.shape
    return height, width
