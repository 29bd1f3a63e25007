"""Images between disk and memory: any common file in, uint8 RGB out."""

from __future__ import annotations

import functools
import io
import os
from typing import Any

import cv2
import numpy as np

from jdet.data.image_formats import diagnosis, whole_jpeg
from jdet.types import DataError

_ORIENTATION = 0x0112
"""EXIF tag."""


@functools.cache
def configure_opencv() -> None:
    """Makes OpenCV single-threaded and silent in this process.

    Readers run in several threads or processes already, so threads inside each operation only get
    into each other's way. What OpenCV would print about a broken file is in our own error.
    """
    cv2.setNumThreads(0)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_image(image: str | os.PathLike | bytes | np.ndarray, *, name: str = "") -> np.ndarray:
    """Decodes an image.

    Grey images get three equal channels, CMYK becomes RGB, 16-bit samples keep their high byte,
    an alpha channel is dropped (the colours as stored, not blended with a background), palettes are
    looked up, and of an animation the first frame counts. Images are turned upright as their EXIF tag
    says, as labelling tools show them: in training, evaluation and prediction alike.

    Args:
        image: path, encoded bytes, or a decoded uint8 or uint16 array [H, W], [H, W, 1],
            [H, W, 3] (RGB) or [H, W, 4] (RGBA).
        name: what to call the image in errors; the path, where there is one, by default.

    Returns:
        uint8 [H, W, 3], RGB. May share memory with ``image`` if that is an array.

    Raises:
        DataError: the file is missing, empty, truncated, corrupt or no image.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image, name or "image given as an array")
    if isinstance(image, (str, os.PathLike)):
        name = name or os.fspath(image)
        try:
            with open(image, "rb") as file:
                data = file.read()
        except OSError as error:
            raise DataError(f"{name}: cannot be read ({error.strerror})") from error
    else:
        name, data = name or "image given as bytes", image
    if not data:
        raise DataError(f"{name}: the file is empty")
    if data.startswith(b"\xff\xd8"):
        data = whole_jpeg(data)
        if data is None:
            raise DataError(f"{name}: truncated JPEG (no end-of-image marker)")
    configure_opencv()
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise DataError(f"{name}: {diagnosis(data)} (OpenCV: {error.err})") from error
    if pixels is None:
        raise DataError(f"{name}: {diagnosis(data)}")
    return pixels


def orientation(image: str | os.PathLike | bytes | np.ndarray) -> int:
    """EXIF orientation of an image as it is stored: 1 upright or unknown, 2 … 8 turned or mirrored."""
    from PIL import Image

    if isinstance(image, np.ndarray):
        return 1
    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            found = opened.getexif().get(_ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 1  # OpenCV reads more files than PIL, and none of those with a tag
    return found if found in range(1, 9) else 1


def upright_size(image: Any) -> tuple[int, int]:
    """Height and width of an image opened by PIL, once it is turned as its EXIF tag says."""
    turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8) and image.format != "TIFF"
    return (image.width, image.height) if turned else (image.height, image.width)


def check_size(image: np.ndarray, labelled: tuple[int, int] | None, name: str) -> None:
    """Holds a decoded image against the size in its label file, to which boxes were clipped.

    Args:
        image: [H, W, 3].
        labelled: height and width; None where the labels do not say.
        name: what to call the image in the error.

    Raises:
        DataError: the sizes differ.
    """
    height, width = image.shape[:2]
    if labelled is None or tuple(labelled) == (height, width):
        return
    if tuple(labelled) == (width, height):
        remedy = (
            "width and height are exchanged. Images count upright, as their EXIF tag says: label them so, "
            "correct the label file, or, where the labels take the pixels as stored, save the image "
            "without the tag"
        )
    else:
        remedy = "put back the image that was labelled, or correct the label file"
    raise DataError(
        f"{name}: the image is {width}x{height} (width x height), its labels say "
        f"{labelled[1]}x{labelled[0]}; {remedy}"
    )


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Writes an image in the format of the path's suffix.

    Args:
        path: file to write, ending in ``.jpg``, ``.png`` or another suffix that OpenCV knows.
        image: uint8 [H, W, 3], RGB.

    Raises:
        DataError: the suffix is unknown or the file cannot be written.
    """
    path = os.fspath(path)
    configure_opencv()
    try:
        _, data = cv2.imencode(os.path.splitext(path)[1], cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise DataError(f"{path}: cannot be encoded ({error.err}); use .jpg or .png") from error
    try:
        with open(path, "wb") as file:
            file.write(data.tobytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def _from_array(image: np.ndarray, name: str) -> np.ndarray:
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or not image.size:
        raise DataError(f"{name}: shape {image.shape} is not [H, W], [H, W, 1], [H, W, 3 or 4]")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    elif image.dtype != np.uint8:
        raise DataError(f"{name}: dtype {image.dtype} is neither uint8 nor uint16")
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]
