"""What the bytes of an image file are, for files that cannot simply be decoded."""

from __future__ import annotations

import io

import numpy as np

_READ = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
"""First bytes of the formats that are read."""

_NOT_READ = {
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF file",
    b"\x1f\x8b": "a gzip archive",
    b"\xff\x0a": "a JPEG XL image",
    b"\0\0\0\x0cJXL ": "a JPEG XL image",
    b"\x89HDF": "an HDF5 file",
    b"SIMPLE": "a FITS image",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML file",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
}
"""First bytes of what lies in image folders and is not read."""

_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF"}

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"),
    *(".npy", ".npz", ".dcm"),
)
"""Of the files that are looked for in folders."""

LFS_POINTER = b"version https://git-lfs"
"""What a file begins with whose content Git LFS has not fetched."""


def diagnosis(data: bytes) -> str:
    """Why a file is not decoded as an image: what it is, and what to do where something can be done."""
    if data.startswith(LFS_POINTER):
        return "a Git LFS pointer, not the image itself; fetch the images with `git lfs pull`"
    for signature, kind in _READ.items():
        if data.startswith(signature):
            return f"corrupt or truncated {kind}"
    if data[4:8] == b"ftyp":
        brand = _BRANDS.get(data[8:12], "")
        if not brand:
            return "a video, not an image; extract its frames first"
        return f"not an image in a format that is read, but {brand}; convert it to JPEG or PNG"
    head = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    for signature, kind in _NOT_READ.items():
        if head.startswith(signature):
            return f"not an image in a known format, but {kind}"
    return f"not an image in a known format (it starts with {data[:8]!r})"


def whole_jpeg(data: bytes) -> bytes | None:
    """A JPEG with its end-of-image marker, put back where nothing but the marker is missing.

    Decoders fill the missing rows of a truncated JPEG with grey and report success.

    Returns:
        ``data``, or with the marker added; None where a part of the image is missing.
    """
    if _has_end(data):
        return data
    core = data.rstrip(b"\0")  # a download may be filled up with zeros
    zeros = len(data) - len(core)
    if not zeros:
        core = core.removesuffix(b"\xff")  # the first half of the marker
    for kept in range(min(zeros, 3) + 1):  # the image's own last bytes may be zeros
        whole = core + b"\0" * kept + _END
        if _ends_with_its_data(whole):
            return whole
    return None


_END = b"\xff\xd9"

_CONTINUATIONS = tuple(
    pattern * 32 for pattern in (b"\0", b"\x55", b"\xaa", b"\x92\x49\x24", b"\x35\xc6")
)


def _ends_with_its_data(jpeg: bytes) -> bool:
    """Whether more data before the end-of-image marker would change nothing.

    In a truncated image such data become the coefficients of the missing blocks.
    """
    first = _pixels(jpeg)
    return first is not None and all(
        (pixels := _pixels(jpeg[: -len(_END)] + more + _END)) is not None
        and np.array_equal(first, pixels)
        for more in _CONTINUATIONS
    )


def _pixels(jpeg: bytes) -> np.ndarray | None:
    """Decoded by Pillow, which is silent about extraneous bytes; None: it cannot be."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _has_end(data: bytes) -> bool:
    """Whether the end-of-image marker follows the first scan of a JPEG.

    Inside a scan 0xFF is always followed by 0x00 or a restart marker, so the first FF D9 behind the
    start of scan is the real one; the header before it may hold a thumbnail with its own markers.
    """
    if data.endswith(_END):
        return True
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        if data[position + 1] == 0xFF:  # padding in front of a marker
            position += 1
        elif data[position + 1] == 0xDA:
            return data.find(_END, position) > 0
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False
