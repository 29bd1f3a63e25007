"""Images beside their pixels: written for people, orientation, the size that was labelled."""

from __future__ import annotations

import io
import os
from typing import Any

import cv2
import numpy as np

from jdet.data.readers.opencv import ORIENTATION, configure_opencv
from jdet.types import DataError


def orientation(image: str | os.PathLike | tuple[str, ...] | bytes | np.ndarray) -> int:
    """EXIF orientation of an image as it is stored: 1 upright or unknown, 2 … 8 turned or mirrored."""
    from PIL import Image

    if isinstance(image, np.ndarray):
        return 1
    if isinstance(image, tuple):
        image = image[0]
    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            found = opened.getexif().get(ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 1  # OpenCV reads more files than PIL, and none of those with a tag
    return found if found in range(1, 9) else 1


def upright_size(image: Any) -> tuple[int, int]:
    """Height and width of an image opened by PIL, once it is turned as its EXIF tag says."""
    turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8) and image.format != "TIFF"
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
