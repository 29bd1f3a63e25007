"""What is counted of image values, channel by channel: exact, mergeable, and the same in any grouping.

Whole numbers have a histogram with a bin for every value, from which all figures follow exactly. Floats
have moments in float64, merged by the formula of Chan, Golub and LeVeque (1979), and a summary of their
order (``jdet.data.quantiles``).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from jdet.data.invalid import valid_values
from jdet.data.quantiles import Counter, Summary, summarise

LEVELS = {"uint8": 256, "uint16": 65_536}
"""Values that a whole-number type has."""

_EXACT = 1 << 24
"""Up to so many OpenCV counts exactly, in float32."""


@dataclasses.dataclass
class Tally:
    """What was counted; one of the two kinds below.

    Attributes:
        images: how many.
        empty: of them, those without a valid value.
        constant: of them, those whose valid values are all equal in every channel.
        invalid: int64 [C], values that are not to be used: NaN, infinity, and the one that the set uses
            for "nothing measured".
        outside: int64 [C], valid values outside the given limits.
    """

    images: int
    empty: int
    constant: int
    invalid: np.ndarray
    outside: np.ndarray

    def add(self, other: Any) -> None:
        """Adds a tally of the same kind, of images that follow those of this one."""
        self.images += other.images
        self.empty += other.empty
        self.constant += other.constant
        self.invalid = self.invalid + other.invalid
        self.outside = self.outside + other.outside

    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Valid values int64 [C], mean and standard deviation float64 [C]; NaN where there are none."""
        raise NotImplementedError

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest valid value, float64 [C]; NaN where there are none."""
        raise NotImplementedError

    def percentiles(self, ranks: Sequence[float]) -> np.ndarray:
        """Values at ranks in 0 … 100, float64 [len(ranks), C]."""
        raise NotImplementedError

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it as arrays, for a file; ``restored`` reads them."""
        raise NotImplementedError

    def _base(self) -> dict[str, np.ndarray]:
        own = (self.images, self.empty, self.constant)
        return {"own": np.array(own), "invalid": self.invalid, "outside": self.outside}


@dataclasses.dataclass
class Histogram(Tally):
    """Of uint8 or uint16.

    Attributes:
        counts: int64 [C, levels], of valid values.
    """

    counts: np.ndarray

    def add(self, other: Histogram) -> None:
        """As in ``Tally``."""
        super().add(other)
        self.counts = self.counts + other.counts

    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As in ``Tally``, from exact sums."""
        found = [_moments_of(counts) for counts in self.counts]
        count, mean, std = map(np.array, zip(*found, strict=True))
        return count.astype(np.int64), mean, std

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """As in ``Tally``."""
        used = [np.flatnonzero(counts) for counts in self.counts]
        low, high = ([values[i] if len(values) else np.nan for values in used] for i in (0, -1))
        return np.array(low, np.float64), np.array(high, np.float64)

    def percentiles(self, ranks: Sequence[float]) -> np.ndarray:
        """As in ``Tally``, the numbers of ``numpy.percentile``."""
        columns = []
        for counts in self.counts:
            ends = np.cumsum(counts)
            place = np.asarray(ranks) / 100 * (ends[-1] - 1)
            below = np.floor(place)
            low, high = (np.searchsorted(ends, p, side="right") for p in (below, np.ceil(place)))
            column = low + (place - below) * (high - low)
            columns.append(column if ends[-1] else np.full(len(ranks), np.nan))
        return np.stack(columns, axis=1)

    def arrays(self) -> dict[str, np.ndarray]:
        """As in ``Tally``; of the histogram only the bins that are used."""
        channel, value = np.nonzero(self.counts)
        used = np.stack([channel, value, self.counts[channel, value]])
        return {**self._base(), "shape": np.array(self.counts.shape), "used": used}


@dataclasses.dataclass
class Moments(Tally):
    """Of float32.

    Attributes:
        count: int64 [C], valid values.
        mean: float64 [C].
        squares: float64 [C], sum of the squared distances from the mean.
        low: float64 [C], smallest valid value; infinity where there are none.
        high: float64 [C], likewise.
        order: a summary of the order of each channel.
    """

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    low: np.ndarray
    high: np.ndarray
    order: list[Counter]

    def add(self, other: Moments) -> None:
        """As in ``Tally``."""
        super().add(other)
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        apart = other.mean - self.mean
        self.mean = self.mean + apart * share
        self.squares = self.squares + other.squares + apart * apart * self.count * share
        self.count = count
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        for own, more in zip(self.order, other.order, strict=True):
            own.extend(more)

    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As in ``Tally``."""
        some = self.count > 0
        std = np.sqrt(self.squares / np.maximum(self.count, 1))
        return self.count, np.where(some, self.mean, np.nan), np.where(some, std, np.nan)

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """As in ``Tally``."""
        some = self.count > 0
        return np.where(some, self.low, np.nan), np.where(some, self.high, np.nan)

    def percentiles(self, ranks: Sequence[float]) -> np.ndarray:
        """As in ``Tally``, within the error of rank that ``jdet.data.quantiles`` names."""
        low, high = self.ends()
        columns = [order.percentiles(ranks) for order in self.order]
        return np.clip(np.stack(columns, axis=1), low, high)

    def arrays(self) -> dict[str, np.ndarray]:
        """As in ``Tally``."""
        found = {key: getattr(self, key) for key in ("count", "mean", "squares", "low", "high")}
        for channel, order in enumerate(self.order):
            held = [(level, one) for level, row in order.levels.items() for one in row]
            found[f"levels_{channel}"] = np.array([level for level, _ in held], np.int64)
            for place, (_, summary) in enumerate(held):
                found[f"values_{channel}_{place}"] = summary.values
                found[f"weights_{channel}_{place}"] = summary.weights
        return {**self._base(), **found}


def tally(
    image: np.ndarray, invalid: float | None = None, limits: tuple[float, float] | None = None
) -> Tally:
    """Counts the values of one image.

    Args:
        image: uint8, uint16 or float32 [H, W, C].
        invalid: value that stands for "nothing measured"; NaN and infinity always do.
        limits: smallest and largest value expected.
    """
    if image.dtype.name in LEVELS:
        return _whole(image, LEVELS[image.dtype.name], invalid, limits)
    return _floats(image.astype(np.float32, copy=False), invalid, limits)


def restored(arrays: Mapping[str, np.ndarray]) -> Tally:
    """The tally whose ``arrays`` these are."""
    own = dict(zip(("images", "empty", "constant"), arrays["own"].tolist(), strict=True))
    base: dict[str, Any] = {**own, "invalid": arrays["invalid"], "outside": arrays["outside"]}
    if "used" in arrays:
        counts = np.zeros(arrays["shape"], np.int64)
        channel, value, number = arrays["used"]
        counts[channel, value] = number
        return Histogram(**base, counts=counts)
    order = [Counter() for _ in arrays["count"]]
    for channel, counter in enumerate(order):
        for place, level in enumerate(arrays[f"levels_{channel}"].tolist()):
            values = arrays[f"values_{channel}_{place}"]
            counter.add(Summary(values, arrays[f"weights_{channel}_{place}"]), level)
    keys = ("count", "mean", "squares", "low", "high")
    moments: dict[str, Any] = {key: arrays[key] for key in keys}
    return Moments(**base, **moments, order=order)


def _whole(image: np.ndarray, levels: int, invalid: Any, limits: Any) -> Histogram:
    counts = np.stack([_bins(image, c, levels) for c in range(image.shape[2])])
    left_out = np.zeros(len(counts), np.int64)
    if invalid is not None and 0 <= invalid < levels and invalid == int(invalid):
        left_out = counts[:, int(invalid)].copy()
        counts[:, int(invalid)] = 0
    outside = np.zeros(len(counts), np.int64)
    if limits is not None:
        values = np.arange(levels)
        outside = counts[:, (values < limits[0]) | (values > limits[1])].sum(1)
    used = (counts > 0).sum(1)
    empty = not used.any()
    return Histogram(
        images=1,
        empty=int(empty),
        constant=int(not empty and (used <= 1).all()),
        invalid=left_out,
        outside=outside,
        counts=counts,
    )


def _bins(image: np.ndarray, channel: int, levels: int) -> np.ndarray:
    if levels > 256:
        return np.bincount(image[..., channel].ravel(), minlength=levels)
    rows = max(1, _EXACT // image.shape[1])
    counts = np.zeros(levels, np.int64)
    for first in range(0, len(image), rows):
        block = np.ascontiguousarray(image[first : first + rows])
        found = cv2.calcHist([block], [channel], None, [levels], [0, levels])
        counts += found.ravel().astype(np.int64)
    return counts


def _floats(image: np.ndarray, invalid: Any, limits: Any) -> Moments:
    rows = []
    for channel in range(image.shape[2]):
        values = image[..., channel].ravel()
        valid = valid_values(values, invalid)
        total = len(values)
        values = values if valid.all() else values[valid]
        outside = 0
        if limits is not None:
            outside = int(((values < limits[0]) | (values > limits[1])).sum())
        summary = summarise(values)
        mean, squares, low, high = 0.0, 0.0, math.inf, -math.inf
        if len(values):
            mean = float(np.mean(values, dtype=np.float64))
            for first in range(0, len(values), 1 << 15):  # small enough for the caches
                apart = np.subtract(values[first : first + (1 << 15)], mean, dtype=np.float64)
                squares += float(np.sum(apart * apart))
            low, high = float(values.min()), float(values.max())
        left_out = total - len(values)
        rows.append((left_out, outside, len(values), mean, squares, low, high, summary))
    left_out, outside, count, mean, squares, low, high, orders = zip(*rows, strict=True)
    empty = not any(count)
    return Moments(
        images=1,
        empty=int(empty),
        constant=int(not empty and all(a >= b for a, b in zip(low, high, strict=True))),
        invalid=np.array(left_out, np.int64),
        outside=np.array(outside, np.int64),
        count=np.array(count, np.int64),
        mean=np.array(mean),
        squares=np.array(squares),
        low=np.array(low),
        high=np.array(high),
        order=[Counter({0: [summary]}) for summary in orders],
    )


def _moments_of(counts: np.ndarray) -> tuple[int, float, float]:
    """Number, mean and standard deviation of a histogram, from exact whole-number sums."""
    values = np.flatnonzero(counts).tolist()
    numbers = counts[values].tolist()
    count = sum(numbers)
    if not count:
        return 0, math.nan, math.nan
    first = sum(v * n for v, n in zip(values, numbers, strict=True))
    second = sum(v * v * n for v, n in zip(values, numbers, strict=True))
    # As fractions: a difference of large sums loses no digit.
    return count, first / count, math.sqrt((second * count - first * first) / (count * count))
