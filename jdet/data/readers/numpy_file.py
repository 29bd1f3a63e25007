"""NPY and NPZ: arrays that programs wrote."""

from __future__ import annotations

import io
import zipfile

import numpy as np

from jdet.data.readers.stored import Stored, with_channels
from jdet.types import DataError

NPY, NPZ = b"\x93NUMPY", b"PK\3\4"


def read_numpy(data: bytes, name: str) -> Stored:
    """The array of a NPY file, or the only one, or the one called "image", of a NPZ file.

    Raises:
        DataError: truncated, pickled, several arrays, or no image.
    """
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            names = loaded.files
            if "image" not in names and len(names) != 1:
                raise DataError(
                    f"{name}: it holds {len(names)} arrays ({', '.join(names[:9])}); call the one that is "
                    "the image 'image', or save it alone"
                )
            loaded = loaded["image" if "image" in names else names[0]]
        if not isinstance(loaded, np.ndarray):
            raise DataError(f"{name}: a ZIP archive, not of NumPy arrays")
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{name}: a NumPy file that cannot be read ({error})") from error
    return from_array(loaded, name, guess=True)


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
