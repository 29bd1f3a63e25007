"""DICOM, by pydicom, the extra ``dicom``."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from jdet.data.readers import limits
from jdet.data.readers.stored import Stored, with_channels
from jdet.types import DataError

PREFIX = b"DICM"
"""At byte 128 of a file."""


def is_dicom(data: bytes) -> bool:
    """Whether a file begins as one of DICOM."""
    return data[128:132] == PREFIX


def read_dicom(data: bytes, name: str, *, palette: str = "colours") -> Stored:
    """The image of a DICOM file in the unit it says: slope and intercept, or its modality LUT, applied.

    Hounsfield units are float32 then; values without slope and intercept stay the whole numbers they are.
    Of MONOCHROME1, which is shown with its smallest value white, the stored numbers are counted from the
    other end, so that more is brighter as in all other images. YCbCr and palettes become RGB.

    Args:
        data: the file.
        name: for messages.
        palette: "indices": of a palette the numbers, not the colours.

    Raises:
        DataError: pydicom is not installed, or the file has no pixels, several frames, or a compression
            that cannot be unpacked.
    """
    try:
        import pydicom
        from pydicom import pixels as processing
    except ImportError as error:
        raise DataError(
            f"{name}: a DICOM file; to read it, pip install --editable '.[dicom]' in the clone"
        ) from error
    try:
        header: Any = pydicom.dcmread(io.BytesIO(data))
    except Exception as error:  # of many kinds, by what is broken
        raise DataError(f"{name}: corrupt or truncated DICOM ({error})") from error
    try:
        pixels = any(
            key in header for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
        )
        what = header.get("Modality", "") or "unknown modality"
        frames = int(header.get("NumberOfFrames", 1) or 1)
        sides = [int(header.get(key, 1) or 1) for key in ("Rows", "Columns", "SamplesPerPixel")]
        itemsize = -(-int(header.get("BitsAllocated", 8) or 8) // 8)
    except Exception as error:  # values are parsed when they are asked for
        raise DataError(f"{name}: corrupt or truncated DICOM ({error})") from error
    if not pixels:
        raise DataError(f"{name}: a DICOM file without pixels ({what}); leave it out")
    if frames > 1:
        raise DataError(
            f"{name}: a DICOM file of {frames} frames; an image is one: save each as a file of its own"
        )
    limits.check(name, sides, itemsize)
    try:
        values = processing.pixel_array(io.BytesIO(data))
        kind = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
        if kind == "PALETTE COLOR" and palette == "colours":
            return Stored(processing.apply_color_lut(values, header), colour=True)
        if kind == "MONOCHROME1":
            top = (1 << int(header.BitsStored)) - 1
            values = (-1 - values) if header.PixelRepresentation else (top - values)
            values = values.astype(
                f"{'int' if header.PixelRepresentation else 'uint'}{header.BitsAllocated}"
            )
        if values.ndim == 2 and kind.startswith("MONOCHROME"):
            values = _in_units(values, header, processing)
    except Exception as error:
        raise DataError(f"{name}: the pixels of a DICOM file cannot be read ({error})") from error
    return Stored(with_channels(np.ascontiguousarray(values)), colour=values.ndim == 3)


def _in_units(values: np.ndarray, header: Any, processing: Any) -> np.ndarray:
    if "ModalityLUTSequence" in header:
        return processing.apply_modality_lut(values, header)
    slope = float(header.get("RescaleSlope", 1) or 1)
    intercept = float(header.get("RescaleIntercept", 0) or 0)
    if slope == 1 and intercept == 0:
        return values
    return (values.astype(np.float64) * slope + intercept).astype(np.float32)
