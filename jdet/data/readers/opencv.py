"""Images that OpenCV decodes: JPEG, PNG, WebP, BMP, GIF, PNM and plain TIFF."""

from __future__ import annotations

import functools
import io
import struct

import cv2
import numpy as np

from jdet.data.image_formats import diagnosis, whole_jpeg
from jdet.data.readers import limits
from jdet.data.readers.stored import Stored, with_channels
from jdet.types import DataError

NATIVE = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
"""Values and channels as stored, without alpha; upright."""

ORIENTATION = 0x0112
"""EXIF tag."""

_TURNS = {
    2: (1, 0),
    3: (None, 2),
    4: (0, 0),
    5: (1, 1),
    6: (None, -1),
    7: (1, -1),
    8: (None, 1),
}
"""EXIF orientation: along which axis an image is flipped, and then by how many quarters it is turned
counterclockwise, to be upright."""


@functools.cache
def configure_opencv() -> None:
    """Makes OpenCV single-threaded and silent in this process.

    Readers run in several threads or processes already, so threads inside each operation only get
    into each other's way. What OpenCV would print about a broken file is in our own error.
    """
    cv2.setNumThreads(0)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode(data: bytes, flags: int, name: str) -> np.ndarray:
    """Decoded by OpenCV, in its order of channels.

    Raises:
        DataError: the data are truncated, corrupt or no image.
    """
    if data.startswith(b"\xff\xd8"):
        whole = whole_jpeg(data)
        if whole is None:
            raise DataError(f"{name}: truncated JPEG (no end-of-image marker)")
        data = whole
    configure_opencv()
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in error.err:
            raise limits.too_large(name, "more pixels by its header") from error
        raise DataError(f"{name}: {diagnosis(data)} (OpenCV: {error.err})") from error
    if pixels is None:
        raise DataError(f"{name}: {diagnosis(data)}")
    return pixels


def decode_native(data: bytes, name: str, *, palette: str = "colours") -> Stored:
    """Values as stored, of 8 or 16 bits.

    Args:
        data: the file.
        name: for messages.
        palette: "indices": of a file with a palette its numbers, not its colours.

    Raises:
        DataError: as `decode`.
    """
    if palette == "indices" and (indices := _indices(data)) is not None:
        return Stored(with_channels(indices))
    if has_alpha(data):
        pixels = upright(decode(data, cv2.IMREAD_UNCHANGED, name), orientation_of(data))
        if pixels.ndim == 3 and pixels.shape[2] == 4:
            if data.startswith(b"\x89PNG") and data[25] == 4:  # grey and alpha
                return Stored(pixels[..., [0, 3]], alpha=True)
            return Stored(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA), colour=True, alpha=True)
    pixels = decode(data, NATIVE, name)
    if pixels.ndim == 2:
        return Stored(pixels[..., None])
    if data.startswith(b"\x89PNG") and data[25] == 4:
        return Stored(pixels[..., :1])
    return Stored(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), colour=True)


def eight_bits(data: bytes) -> bool:
    """Whether a file surely holds samples of 8 bits or less."""
    if data.startswith(b"\x89PNG"):
        return len(data) > 24 and data[24] <= 8
    return data.startswith((b"\xff\xd8", b"GIF8", b"RIFF", b"BM"))


def has_alpha(data: bytes) -> bool:
    """Whether a PNG or WebP has an alpha channel or transparent colours, by its header."""
    if data.startswith(b"\x89PNG"):
        end = data.find(b"IDAT")
        return len(data) > 25 and (data[25] in (4, 6) or data.find(b"tRNS", 33, max(end, 33)) > 0)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP" and len(data) > 24:
        kind = data[12:16]
        if kind == b"VP8X":
            return bool(data[20] & 0x10)
        return kind == b"VP8L" and bool(struct.unpack_from("<I", data, 21)[0] >> 28 & 1)
    return False


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """An image of any type and channels turned as an EXIF orientation says."""
    flip, turns = _TURNS.get(orientation, (None, 0))
    if flip is not None:
        pixels = np.flip(pixels, flip)
    return np.ascontiguousarray(np.rot90(pixels, turns))


def orientation_of(data: bytes) -> int:
    """EXIF orientation: 1 upright or unknown, 2 … 8 turned or mirrored."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 1  # OpenCV reads more files than PIL, and none of those with a tag


def _indices(data: bytes) -> np.ndarray | None:
    """Numbers of the colours of a file with a palette, uint8 [H, W]; None: it has none."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode != "P":
                return None
            return upright(np.asarray(image), image.getexif().get(ORIENTATION, 1))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # what is wrong with it is said where it is decoded
