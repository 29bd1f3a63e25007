"""An image of a set as all its images are: [H, W, C] of one type, values as stored."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import cv2
import numpy as np

from jdet.data.readers.opencv import decode, eight_bits
from jdet.data.readers.read import ALPHA, Image, load, name_of, read_stored
from jdet.data.readers.settings import ImageSettings
from jdet.data.readers.stored import Stored
from jdet.types import DataError, ImageKind


@dataclasses.dataclass(frozen=True)
class Decoder:
    """Reads images of one kind, and refuses what cannot become one without changing its values.

    Attributes:
        kind: what comes out.
        settings: what may be converted.
    """

    kind: ImageKind = ImageKind()
    settings: ImageSettings = ImageSettings()

    @classmethod
    def of(cls, source: Any) -> Decoder:
        """The decoder of a source's images."""
        return cls(ImageKind.of(source), getattr(source, "image_settings", ImageSettings()))

    def __call__(self, image: Image, name: str = "") -> np.ndarray:
        """Decodes an image.

        Args:
            image: a path, several paths, encoded bytes or an array, as ``Example.image``.
            name: what to call it in errors; the path, where there is one, by default.

        Returns:
            [H, W, C] of ``kind``, upright as its EXIF tag says. May share memory with ``image``.

        Raises:
            DataError: a file is missing, empty, truncated, corrupt, no image, or of another kind.
        """
        name = name or name_of(image)
        if self._plain and isinstance(image, (str, bytes, os.PathLike)):
            image = load(image, name)
            if eight_bits(image):
                return decode(image, cv2.IMREAD_COLOR_RGB, name)
        return self.convert(read_stored(image, name, self.settings), name)

    @property
    def _plain(self) -> bool:
        """Whether 8-bit files in the usual formats can be decoded straight to RGB."""
        settings = self.settings
        return (
            self.kind[:3] == ImageKind()[:3]
            and settings.palette == "colours"
            and settings.alpha == "drop"
            and not settings.bands
        )

    def convert(self, stored: Stored, name: str) -> np.ndarray:
        """Stored values as the images of the set are.

        Raises:
            DataError: they have other channels, or values that the type does not hold.
        """
        pixels = self._typed(self._channels(stored, name), name)
        return np.ascontiguousarray(pixels)

    def _channels(self, stored: Stored, name: str) -> np.ndarray:
        kind = self.kind
        if stored.alpha and stored.pixels.shape[2] != kind.channels:
            if self.settings.alpha == "refuse" and not stored.opaque:
                raise DataError(f"{name}: {ALPHA}")
            stored = stored.without_alpha()
        pixels = stored.pixels
        count = pixels.shape[2]
        if count == kind.channels:
            return pixels
        if kind.colour == "rgb" and count == 1:
            return np.repeat(pixels, 3, axis=2)
        if kind.colour == "gray" and count == 3 and stored.colour:
            first = pixels[..., :1]
            if (pixels == first).all():
                return first
            if self.settings.channels == "gray":
                return _brightness(pixels)
        raise DataError(f"{name}: {wrong_channels(count, self)}")

    def _typed(self, pixels: np.ndarray, name: str) -> np.ndarray:
        wanted, kind = np.dtype(self.kind.dtype), pixels.dtype
        if kind == wanted:
            return pixels
        if self.settings.dtype == "auto" and travels_as(kind) != self.kind.dtype:
            raise DataError(f"{name}: {wrong_dtype(str(kind), self)}")
        if wanted == np.float32:
            cast = pixels.astype(np.float32)
            if kind.kind in "iu" and not np.array_equal(cast.astype(np.float64), pixels):
                raise DataError(
                    f"{name}: its {kind} values are too large for float32, exact up to 2^24"
                )
            return cast
        cast = pixels.astype(wanted)
        if not np.array_equal(cast, pixels):
            raise DataError(f"{name}: {wrong_dtype(str(kind), self)}")
        return cast


def travels_as(dtype: Any) -> str:
    """The type in which values of a type travel where the config does not say."""
    dtype = np.dtype(dtype)
    if dtype in (np.uint8, np.bool_):
        return "uint8"
    return "uint16" if dtype == np.uint16 else "float32"


def wrong_channels(count: int, decoder: Decoder) -> str:
    """What is wrong with an image of so many channels, and what to do."""
    have = f"it has {count} channel{'s' * (count != 1)}"
    kind = decoder.kind
    if decoder.settings.kind is not None:
        remedy = f"give it as {described(kind)}, or train again on such images"
    else:
        other = {1: "gray", 3: "rgb"}.get(count, count)
        chosen = f"--config.data.image.bands='{tuple(range(kind.channels))}' takes the first"
        remedy = f"leave it out, or say what all are: --config.data.image.channels={other}"
        remedy += f"; {chosen}" if count > kind.channels else ""
    return f"{have}, {_others(decoder, 'channels')} {described(kind)}; {remedy}"


def wrong_dtype(dtype: str, decoder: Decoder) -> str:
    """What is wrong with an image of another type, and what to do."""
    kind = decoder.kind
    if decoder.settings.kind is not None:
        remedy = f"give it as {kind.dtype}, in the unit of training, or train again on such images"
    else:
        wider = "float32" if travels_as(dtype) == "float32" else "uint16"
        wider = "float32" if kind.dtype == "float32" else wider
        remedy = f"leave it out, take all as --config.data.image.dtype={wider} with the values as they are"
        if {dtype, kind.dtype} == {"uint8", "uint16"}:
            remedy += (
                ", or 16-bit files by their high byte alone, --config.data.image.high_byte=True"
            )
    return f"its values are {dtype}, {_others(decoder, 'dtype')} {kind.dtype}; {remedy}"


def _others(decoder: Decoder, key: str) -> str:
    """What decided how an image must be."""
    if decoder.settings.kind is not None:
        return "the training's were"
    asked = getattr(decoder.settings, key)
    return (
        "those of the set are" if asked == "auto" else f"config.data.image.{key}={asked!r} asks for"
    )


def described(kind: ImageKind) -> str:
    """Channels and type in words."""
    return f"{kind.dtype} [H, W, {kind.channels}]" + {"rgb": ", RGB", "gray": ", grey"}.get(
        kind.colour, ""
    )


def _brightness(pixels: np.ndarray) -> np.ndarray:
    """Of red, green and blue, by the weights of ITU-R BT.601; whole numbers are rounded."""
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        pixels = pixels.astype(np.float32)
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
