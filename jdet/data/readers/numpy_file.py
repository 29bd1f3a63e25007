"""NPY and NPZ: arrays that programs wrote."""

from __future__ import annotations

import io
import math
import zipfile
from typing import IO

import numpy as np

from jdet.data.readers import limits
from jdet.data.readers.stored import Stored, with_channels
from jdet.types import ConfigError, DataError

NPY, NPZ = b"\x93NUMPY", b"PK\3\4"


def read_numpy(data: bytes, name: str) -> Stored:
    """The array of a NPY file, or the one called "image", or the only one, of a NPZ file.

    What else lies in an archive, such as JSON that describes the image, is not read.

    Raises:
        DataError: truncated, pickled, several arrays, too large, or no image.
    """
    try:
        if data.startswith(NPZ):
            loaded = _only_array(data, name)
        else:
            _check(io.BytesIO(data), len(data), name)
            loaded = np.load(io.BytesIO(data), allow_pickle=False)
    except (ConfigError, DataError):
        raise
    except Exception as error:  # of many kinds, by what is broken
        raise DataError(f"{name}: a NumPy file that cannot be read ({error})") from error
    return from_array(loaded, name, guess=True)


def _only_array(data: bytes, name: str) -> np.ndarray:
    """The array of a NPZ file that is the image."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {
            each.filename.removesuffix(".npy"): each
            for each in archive.infolist()
            if each.filename.endswith(".npy")
        }
        if not members:
            raise DataError(f"{name}: a ZIP archive, not of NumPy arrays")
        if "image" not in members and len(members) != 1:
            raise DataError(
                f"{name}: it holds {len(members)} arrays ({', '.join([*members][:9])}); call the one that "
                "is the image 'image', or save it alone"
            )
        chosen = members["image" if "image" in members else next(iter(members))]
        with archive.open(chosen) as file:
            _check(file, chosen.file_size, name)
        with archive.open(chosen) as file:
            return np.lib.format.read_array(file, allow_pickle=False)


def _check(file: IO[bytes], length: int, name: str) -> None:
    """Refuses an array that is larger than what follows its header, or than images may be."""
    shape, dtype = read_header(file)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > length:
        raise DataError(f"{name}: truncated, its array of shape {shape} ends behind the file")
    limits.check(name, shape, dtype.itemsize)


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array of a NPY file.

    Raises:
        Exception: of many kinds, where the header is broken.
    """
    known = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in known:
        raise ValueError(f"version {version} of the format is not read")
    shape, _, dtype = known[version](file)
    return shape, dtype


def from_array(array: np.ndarray, name: str, *, guess: bool = False) -> Stored:
    """An array [H, W] or [H, W, C] as an image; with ``guess`` [C, H, W] too.

    Then the shorter one of the first and the last of three axes is the channels, the last where they are
    alike. Three channels of 8 bits are red, green and blue, a fourth is alpha.

    Raises:
        DataError: it has other axes, or what it holds are no numbers.
    """
    shape, kind = array.shape, array.dtype
    if array.ndim not in (2, 3) or not array.size or kind.kind not in "biuf":
        raise DataError(f"{name}: shape {shape} of dtype {kind} is no image [H, W] or [H, W, C]")
    if guess and array.ndim == 3 and shape[0] < shape[2]:
        array = np.ascontiguousarray(array.transpose(1, 2, 0))
    pixels = with_channels(array)
    colour = pixels.dtype == np.uint8 and pixels.shape[2] in (3, 4)
    return Stored(pixels, colour, colour and pixels.shape[2] == 4)
