"""TIFF: by OpenCV where it gives the values as they are, else by tifffile, the extra ``tiff``."""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np

from jdet.data.readers import limits
from jdet.data.readers.opencv import NATIVE, ORIENTATION, configure_opencv, decode_native, upright
from jdet.data.readers.stored import Stored, with_channels
from jdet.types import DataError

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_BITS, _COMPRESSION, _PHOTOMETRIC, _DESCRIPTION = 258, 259, 262, 270
_SAMPLES, _PLANAR, _EXTRA, _FORMAT, _SUBFILE = 277, 284, 338, 339, 254

_OFFSETS, _COUNTS = (273, 324), (279, 325)
"""Where strips and tiles lie, and their lengths."""

_CMYK = 5
"""Photometric interpretation."""

_PLAIN = {1, 5, 8, 32773, 32946}
"""Compressions that OpenCV always has: none, LZW, deflate, PackBits, the older deflate."""

_COMPRESSIONS = {
    7: "JPEG",
    33003: "JPEG 2000",
    34712: "JPEG 2000",
    34887: "LERC",
    50000: "Zstandard",
}

_FORMATS = {1: "uint", 2: "int", 3: "float"}


class Page(NamedTuple):
    """What the tags of a page say.

    Attributes:
        height: pixels.
        width: pixels.
        bits: of a sample.
        format: "uint", "int", "float" or another word for it.
        samples: channels.
        compression: number of TIFF.
        photometric: number of TIFF: 0 and 1 grey, 2 RGB, 3 palette, 5 CMYK, 6 YCbCr, 8 Lab.
        planar: channels lie one after the other.
        extra: what the first sample beyond the colours means: 1 and 2 alpha, 0 something else; -1 where
            nothing is said.
        images: that the description of ImageJ counts; 1 without one.
        end: of the last byte of its pixels in the file; 0 where nothing is said.
        auxiliary: a smaller copy of another page, or its mask.
        orientation: 1 upright, 2 … 8 turned or mirrored, as of EXIF.
    """

    height: int
    width: int
    bits: int
    format: str
    samples: int
    compression: int
    photometric: int
    planar: bool
    extra: int
    images: int
    end: int
    auxiliary: bool
    orientation: int

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width once it is turned as its orientation says."""
        turned = self.orientation in (5, 6, 7, 8)
        return (self.width, self.height) if turned else (self.height, self.width)

    @property
    def dtype(self) -> np.dtype | None:
        """Type of the values; None where numpy has none such."""
        bits = next((b for b in (8, 16, 32, 64) if b >= self.bits), 0)
        try:
            return np.dtype(f"{self.format}{bits}")
        except TypeError:
            return None

    @property
    def colour(self) -> bool:
        """Whether the first three channels are colours."""
        return self.photometric in (2, 3, 5, 6, 8)

    @property
    def alpha(self) -> bool:
        """Whether the last sample is the opacity."""
        if self.samples not in (2, 4) or self.photometric == _CMYK:
            return False
        return self.extra in (1, 2) or (self.colour and self.extra < 0)

    @property
    def channels(self) -> int:
        """That come out, palettes looked up."""
        looked_up = self.photometric == 3 or (self.photometric == _CMYK and self.by_opencv)
        return 3 if looked_up else self.samples

    @property
    def by_opencv(self) -> bool:
        """Whether OpenCV gives the values as they are.

        Of 8 bits it makes RGB of everything, and multiplies colours by an alpha channel.
        """
        if self.bits in (1, 4, 8) and self.format == "uint":
            known = self.compression in _PLAIN | {2, 3, 4, 7}
            return known and (self.samples in (1, 3) or self.photometric == _CMYK)
        plain = self.compression in _PLAIN and not self.planar and self.photometric in (1, 2)
        samples = self.samples == (1 if self.photometric == 1 else 3)
        types = ("uint16", "int16", "uint32", "int32", "float32", "float64")
        return plain and samples and self.bits in (16, 32, 64) and str(self.dtype) in types


def read_tiff(data: bytes, name: str, *, palette: str = "colours") -> Stored:
    """A TIFF with the channels of all its pages, one after the other.

    Args:
        data: the file.
        name: for messages.
        palette: "indices": of a file with a palette its numbers, not its colours.

    Raises:
        DataError: corrupt, truncated, compressed in a way that nothing here decompresses, with pages of
            different sizes or with more axes than an image has; or tifffile is needed and not installed.
    """
    try:
        every = _every_page(data)
    except ValueError as error:
        raise DataError(f"{name}: corrupt or truncated TIFF ({error})") from error
    found = [page for page in every if not page.auxiliary]
    if not found:
        raise DataError(f"{name}: corrupt or truncated TIFF, it has no image")
    first = found[0]
    if max(page.end for page in found) > len(data):
        raise DataError(f"{name}: truncated TIFF, its pixels end behind the file")
    values = first.samples * len(found)
    limits.check(name, (first.height, first.width, values), -(-first.bits // 8))
    if any(page[:2] != first[:2] for page in found):
        sizes = ", ".join(dict.fromkeys(f"{page.width}x{page.height}" for page in found))
        raise DataError(
            f"{name}: its {len(found)} pages differ in size ({sizes}); save each image as a file of its own"
        )
    if len(turned := {page.orientation for page in found}) > 1:
        raise DataError(
            f"{name}: its {len(found)} pages have different orientations ({', '.join(map(str, turned))}); "
            "save all turned alike"
        )
    simple = all(page.by_opencv for page in found) and first.images <= len(found)
    alone = len(found) == 1 and not every[0].auxiliary  # OpenCV decodes the first page, or all
    simple = simple and (alone or len(found) == len(every))
    if alone and simple and first.bits <= 8:
        return decode_native(data, name, palette=palette)
    if simple and not any(page.photometric in (0, 3) for page in found):
        configure_opencv()
        encoded = np.frombuffer(data, np.uint8)
        read: Any = ()
        try:
            if alone:
                read = (cv2.imdecode(encoded, NATIVE),)
            else:
                read = cv2.imdecodemulti(encoded, NATIVE)[1]
        except cv2.error:
            pass  # as where it gives nothing
        if len(read) != len(found) or any(x is None for x in read):
            raise DataError(f"{name}: corrupt or truncated TIFF")
        read = [x[..., ::-1] if x.ndim == 3 else x[..., None] for x in read]
        pixels = np.concatenate(read, axis=2) if len(read) > 1 else np.ascontiguousarray(read[0])
        return Stored(pixels, first.colour and len(found) == 1)
    return _by_tifffile(data, name, first)


def _by_tifffile(data: bytes, name: str, page: Page) -> Stored:
    what = f"a TIFF of {page.samples} x {page.bits} bits ({page.format}){_packed(page)}"
    try:
        import tifffile
    except ImportError as error:
        raise DataError(
            f"{name}: {what}; to read it, pip install --editable '.[tiff]' in the clone"
        ) from error
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series = [one for one in file.series if not one.keyframe.subfiletype & 5]
            axes, pixels = series[0].axes, series[0].asarray()
    except Exception as error:  # of many kinds, by what is broken
        known = page.compression in _PLAIN | set(_COMPRESSIONS) | {2, 3, 4, 6}
        reason = (
            f"{what} cannot be read ({error})" if known else f"{what}, which nothing here unpacks"
        )
        raise DataError(f"{name}: {reason}; save it uncompressed, or compressed by LZW") from error
    if len(series) > 1:
        raise DataError(
            f"{name}: it holds {len(series)} images of different sizes or types; save each as a file of "
            "its own"
        )
    sized = [
        (axis, length) for axis, length in zip(axes, pixels.shape) if length > 1 or axis in "YX"
    ]
    others = [axis for axis, _ in sized if axis not in "YX"]
    if len(others) > 1 or not {"Y", "X"} <= {axis for axis, _ in sized}:
        shape = ", ".join(f"{axis} {length}" for axis, length in sized)
        raise DataError(
            f"{name}: its axes are {shape}; an image has two and channels: save each plane as a file"
        )
    pixels = pixels.reshape([length for _, length in sized])
    order = [axis for axis, _ in sized]
    pixels = pixels.transpose([order.index(axis) for axis in (*"YX", *others)])
    alone = others in ([], ["S"])
    pixels = upright(with_channels(pixels), page.orientation)  # as OpenCV does with those it reads
    rgb = page.photometric in (2, 6) and alone and page.samples >= 3
    return Stored(pixels, rgb, page.alpha and alone)


def _packed(page: Page) -> str:
    if page.compression in _PLAIN:
        return ""
    known = _COMPRESSIONS.get(page.compression)
    return (
        f", compressed by {known}" if known else f" with the private compression {page.compression}"
    )


def pages(data: bytes | mmap.mmap) -> list[Page]:
    """The pages of a TIFF or BigTIFF, but for smaller copies and masks of others.

    Raises:
        ValueError: what should describe them lies behind the file, or is none.
    """
    return [page for page in _every_page(data) if not page.auxiliary]


def _every_page(data: bytes | mmap.mmap) -> list[Page]:
    try:
        return [_page(tags) for tags in _directories(data)]
    except (struct.error, IndexError, KeyError, MemoryError) as error:
        raise ValueError(f"its directory is broken: {error}") from error


def _page(tags: dict[Any, Any]) -> Page:
    description = tags.get(_DESCRIPTION, b"")
    images = 1
    if description.startswith(b"ImageJ="):
        counts = [line[7:] for line in description.split(b"\n") if line.startswith(b"images=")]
        images = int(counts[0]) if counts and counts[0].strip().isdigit() else 1
    kind = tags.get(_FORMAT, 1)
    return Page(
        height=tags[257],
        width=tags[256],
        bits=tags.get(_BITS, 1),
        format=_FORMATS.get(kind, "complex" if kind in (5, 6) else "undefined"),
        samples=tags.get(_SAMPLES, 1),
        compression=tags.get(_COMPRESSION, 1),
        photometric=tags.get(_PHOTOMETRIC, 1),
        planar=tags.get(_PLANAR, 1) == 2,
        extra=tags.get(_EXTRA, -1),
        images=images,
        end=max(tags.get("ends", [0])),
        auxiliary=bool(tags.get(_SUBFILE, 0) & 5),
        orientation=tags.get(ORIENTATION, 1),
    )


def _directories(data: bytes | mmap.mmap) -> Iterator[dict[Any, Any]]:
    """Tags of every image file directory: tag → its first value, or the bytes of a text.

    Under "ends" stand the places in the file where the strips or tiles of pixels end.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    count_type, entry, word = ("Q", 20, "Q") if big else ("H", 12, "I")
    (start,) = struct.unpack_from(order + word, data, 8 if big else 4)
    seen: set[int] = set()
    while start and start not in seen and len(seen) < 10_000:
        seen.add(start)
        (count,) = struct.unpack_from(order + count_type, data, start)
        first = start + struct.calcsize(order + count_type)
        count = min(count, 1000)
        tags: dict[Any, Any] = {}
        blocks: dict[int, tuple[int, ...]] = {}
        for place in range(first, first + count * entry, entry):
            tag, kind = struct.unpack_from(order + "HH", data, place)
            letter = {1: "B", 2: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
            if letter is None:
                continue
            (values,) = struct.unpack_from(order + word, data, place + 4)
            at = place + 4 + struct.calcsize(order + word)
            if values * struct.calcsize(letter) > struct.calcsize(word):
                (at,) = struct.unpack_from(order + word, data, at)
            if (kind == 2) != (tag == _DESCRIPTION):
                continue
            if kind == 2:
                tags[tag] = data[at : at + values]
            elif values:
                (tags[tag],) = struct.unpack_from(order + letter, data, at)
            if tag in _OFFSETS + _COUNTS:
                blocks[tag] = struct.unpack_from(f"{order}{values}{letter}", data, at)
        for starts, counts in zip(_OFFSETS, _COUNTS):
            if starts in blocks and counts in blocks:
                tags["ends"] = [a + b for a, b in zip(blocks[starts], blocks[counts])] or [0]
        yield tags
        (start,) = struct.unpack_from(order + word, data, first + count * entry)
