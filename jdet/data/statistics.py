"""What the values of a data set's images are, channel by channel: what images are normalised by.

``jdet.data.measure`` measures them in one pass over the images.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from jdet.data.tally import LEVELS, Histogram, Tally
from jdet.types import DataError

RANKS = (0.1, 1.0, 50.0, 99.0, 99.9)
"""Percentiles that are kept."""

Channels = tuple[float, ...]


class ImageStatistics(NamedTuple):
    """Valid values of all images of a set; a number per channel where nothing else is said.

    Attributes:
        dtype: of the images.
        images: how many were measured.
        unreadable: how many could not be read.
        empty: measured images without a valid value.
        constant: measured images whose valid values are all equal in every channel.
        valid: number of valid values.
        invalid: number of values that are not to be used: NaN, infinity, and the one that stands for
            "nothing measured".
        outside: number of valid values outside the limits that were given.
        mean: of the valid values.
        std: their standard deviation, biased.
        minimum: smallest valid value.
        maximum: largest valid value.
        percentiles: a row for each of ``RANKS``.
    """

    dtype: str
    images: int
    unreadable: int
    empty: int
    constant: int
    valid: tuple[int, ...]
    invalid: tuple[int, ...]
    outside: tuple[int, ...]
    mean: Channels
    std: Channels
    minimum: Channels
    maximum: Channels
    percentiles: tuple[Channels, ...]

    @classmethod
    def of(cls, tally: Tally, unreadable: int = 0) -> ImageStatistics:
        """The statistics of what was counted."""
        valid, mean, std = tally.moments()
        low, high = tally.ends()
        dtype = "float32"
        if isinstance(tally, Histogram):
            dtype = next(k for k, levels in LEVELS.items() if levels == tally.counts.shape[1])
        return cls(
            dtype=dtype,
            images=tally.images,
            unreadable=unreadable,
            empty=tally.empty,
            constant=tally.constant,
            valid=tuple(valid.tolist()),
            invalid=tuple(tally.invalid.tolist()),
            outside=tuple(tally.outside.tolist()),
            mean=tuple(mean.tolist()),
            std=tuple(std.tolist()),
            minimum=tuple(low.tolist()),
            maximum=tuple(high.tolist()),
            percentiles=tuple(tuple(row) for row in tally.percentiles(RANKS).tolist()),
        )

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> ImageStatistics:
        """The record whose ``_asdict`` went through JSON, where NaN is None."""
        return cls(**{key: _tuples(value) for key, value in stored.items()})

    def check(self, what: str, invalid: float | None = None) -> None:
        """Refuses images from which nothing can be learnt.

        Args:
            what: the set, for the message.
            invalid: the value that stands for "nothing measured", if any.

        Raises:
            DataError: no channel has two different valid values.
        """
        if not any(self.valid):
            also = "" if invalid is None else f" and {invalid:g} (config.data.image.invalid)"
            raise DataError(
                f"{what}: none of the {self.images} images has a valid value: all are NaN or infinite"
                f"{also}. Correct the files"
                + (", or leave config.data.image.invalid out" if invalid is not None else "")
            )
        if not any(std > 0 for std in self.std):
            raise DataError(
                f"{what}: all values of all {self.images} images are equal, "
                f"{_numbers(self.minimum)} by channel; there is nothing to see. Correct the files"
            )

    @property
    def scales(self) -> Channels:
        """``std``, and 1 for channels that are constant or have no valid value."""
        return tuple(s if s > 0 else 1.0 for s in self.std)

    @property
    def centres(self) -> Channels:
        """``mean``, and 0 for channels without a valid value."""
        return tuple(0.0 if math.isnan(m) else m for m in self.mean)

    @property
    def levels(self) -> tuple[Channels, Channels]:
        """The range that nearly all values lie in: the outermost percentiles, a number per channel.

        Where they are equal, as of a channel with few values, it reaches from the smallest to the largest
        value, and of a constant channel to 1 above.
        """
        low, high = [], []
        for row in zip(
            self.percentiles[0], self.percentiles[-1], self.minimum, self.maximum, strict=True
        ):
            a, b, least, most = (0.0 if math.isnan(value) else value for value in row)
            a, b = (a, b) if a < b else (least, most)
            low.append(a)
            high.append(b if a < b else a + 1.0)
        return tuple(low), tuple(high)

    def warnings(self) -> list[str]:
        """What should be known before training, a line each; empty where all is well."""
        lines = []
        total = sum(self.valid) + sum(self.invalid)
        if lost := sum(self.invalid):
            lines.append(
                f"{lost:,} of {total:,} values ({lost / total:.2%}) are invalid and become the mean of "
                f"their channel; by channel: {_numbers(self.invalid)}"
            )
        if self.empty:
            lines.append(
                f"{self.empty:,} of {self.images:,} images have no valid value; the network sees "
                "them blank"
            )
        if self.constant:
            lines.append(
                f"{self.constant:,} of {self.images:,} images are constant: all their values are equal"
            )
        for channel, (std, value) in enumerate(zip(self.std, self.minimum, strict=True)):
            if not std > 0:
                what = "has no valid value" if math.isnan(value) else f"is {value:g} in all images"
                lines.append(f"channel {channel} {what}: it tells the network nothing")
        if beyond := sum(self.outside):
            lines.append(
                f"{beyond:,} of {sum(self.valid):,} values ({beyond / sum(self.valid):.2%}) lie outside "
                f"the range of config.data.normalise.range; they are kept, as values beyond -1 … 1. The "
                f"values are {_numbers(self.minimum)} … {_numbers(self.maximum)} by channel"
            )
        if self.unreadable:
            lines.append(f"{self.unreadable:,} images could not be read and are left out")
        return lines

    def describe(self) -> str:
        """One line: how many images, and mean and standard deviation by channel."""
        return (
            f"mean {_numbers(self.mean)}, standard deviation {_numbers(self.std)}, values "
            f"{_numbers(self.minimum)} … {_numbers(self.maximum)}, by channel over "
            f"{self.images:,} images"
        )


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    return np.nan if value is None else value
