"""What a config says of images: ``config.data.image``."""

from __future__ import annotations

import dataclasses
from typing import Any

from jdet.data.readers.file_pattern import FilePattern
from jdet.types import ImageKind, nearest, require

DTYPES = ("uint8", "uint16", "float32")
"""Types in which images travel."""

NAMED_CHANNELS = ("rgb", "gray", "auto")

MOST_CHANNELS = 512
"""Channels that OpenCV can resize and turn."""

LARGEST = 3.4028235e38
"""Number that float32 holds, as files say it that mark what was not measured."""


@dataclasses.dataclass(frozen=True)
class ImageSettings:
    """How files become arrays (docs/images.md). Values are never scaled.

    Attributes:
        channels: "rgb": three; grey images get three equal channels. "gray": one; of colours their
            brightness. "auto": those of the files, and three where some are grey and some are colour. A
            number: just so many.
        dtype: "auto": that of the files, which must agree. "uint8", "uint16" or "float32": files of another
            type are taken as they are where this type holds their values.
        high_byte: 16-bit files become 8-bit ones by their high byte; the low byte is lost.
        value_range: lowest and highest value that means something; (): as ``ImageKind`` has it. Values
            outside are kept, and counted where images are looked at.
        bands: channels of the files to take, in this order, counted from 0; (): all.
        palette: "colours" or "indices" of files with a palette.
        alpha: "drop" or "refuse" an alpha channel; one that is opaque everywhere is left out in any case.
        files: pattern of the files of an image, such as ``{stem}_rgb.png + {stem}_depth.png``, whose
            channels are put together; "": one file, or those that the label file lists.
        invalid: value that stands for "nothing measured", besides NaN and infinity; it is kept here, and
            left out where values are measured. None: there is none.
        kind: what the images must be, because something was trained on it; None: found out.

    Raises:
        ConfigError: a value is none of these.
    """

    channels: str = "rgb"
    dtype: str = "auto"
    high_byte: bool = False
    value_range: tuple[float, ...] = ()
    bands: tuple[int, ...] = ()
    palette: str = "colours"
    alpha: str = "drop"
    files: str = ""
    invalid: float | None = None
    kind: ImageKind | None = None

    def __post_init__(self) -> None:
        text = str(self.channels)
        number = text.isdigit() and 1 <= int(text) <= MOST_CHANNELS
        expected = f"rgb, gray, auto or a number in 1 … {MOST_CHANNELS}"
        known = text in NAMED_CHANNELS or number
        _require(known, "channels", text, expected + nearest(text, NAMED_CHANNELS))
        object.__setattr__(self, "channels", text)
        for key, allowed in (
            ("dtype", ("auto", *DTYPES)),
            ("palette", ("colours", "indices")),
            ("alpha", ("drop", "refuse")),
        ):
            value = getattr(self, key)
            expected = f"one of {', '.join(allowed)}{nearest(str(value), allowed)}"
            _require(value in allowed, key, value, expected)
        number = self.invalid is None or abs(self.invalid) <= LARGEST
        _require(number, "invalid", self.invalid, "None, or a number that float32 holds")
        low_high = tuple(self.value_range)
        rising = not low_high or (len(low_high) == 2 and low_high[0] < low_high[1])
        _require(rising, "value_range", low_high, "two rising numbers, or ()")
        whole = all(type(band) is int and 0 <= band < MOST_CHANNELS for band in self.bands)
        _require(
            whole and len(set(self.bands)) == len(self.bands),
            "bands",
            self.bands,
            f"different whole numbers in 0 … {MOST_CHANNELS - 1}, such as (2, 1, 0)",
        )
        if self.files:
            FilePattern(self.files)

    @property
    def count(self) -> int | None:
        """The number of channels where the setting says one."""
        return {"rgb": 3, "gray": 1}.get(self.channels) or (
            int(self.channels) if self.channels.isdigit() else None
        )

    def for_kind(self, kind: ImageKind) -> ImageSettings:
        """The same for images that must be of a kind."""
        return dataclasses.replace(self, kind=kind)


def _require(condition: Any, key: str, value: object, expected: str) -> None:
    require(bool(condition), f"config.data.image.{key}", value, expected)


USUAL = ImageSettings()
"""Of a config that says nothing."""
