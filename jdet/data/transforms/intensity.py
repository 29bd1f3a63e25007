"""Photometric changes to images of any channels and any range of values.

A change is said in shares of the range of the values, so that the same numbers suit 8 bits, 12 of 16, and
temperatures in float32. Floats are not clipped; whole numbers are rounded, and saturate where their type
ends.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from jdet.types import ImageKind

Channels = tuple[float, ...]


class ImageValues(NamedTuple):
    """What the values of images mean to what changes them.

    Attributes:
        colour: as in ``ImageKind``; hue and saturation exist for "rgb" alone.
        low: of each channel, the value that counts as black: percentile or limit of the range.
        high: of each channel, the value that counts as white.
        neutral: of each channel, the value that tells nothing: its mean.
        invalid: value that stands for "nothing measured"; NaN and infinity always do.
    """

    colour: str = "rgb"
    low: Channels = (0.0, 0.0, 0.0)
    high: Channels = (255.0, 255.0, 255.0)
    neutral: Channels = (127.5, 127.5, 127.5)
    invalid: float | None = None

    @classmethod
    def of(cls, kind: ImageKind) -> ImageValues:
        """What the values of a kind of images mean where nothing was measured: neutral is the middle."""
        low, high = kind.value_range
        count = kind.channels
        ends = (low,) * count, (high,) * count
        return cls(
            colour=kind.colour, low=ends[0], high=ends[1], neutral=((low + high) / 2,) * count
        )


USUAL_VALUES = ImageValues()


class Intensity(NamedTuple):
    """One draw; the defaults change nothing. A number for all channels, or one for each.

    Values v become ``t = (v - low) / (high - low)``, then ``t ** gamma`` (of t above 0), times ``gain``,
    plus ``offset``, plus noise.

    Attributes:
        gamma: exponents.
        gain: factors.
        offset: shares of the range.
        noise: standard deviation of normal noise, independent in every pixel and channel, share of the
            range.
        noise_seed: of that noise.
        saturation: factor of S in HSV, of RGB alone.
        hue: turn of the colour circle, degrees, of RGB alone.
        dropped: channels that become neutral.
    """

    gamma: Channels = (1.0,)
    gain: Channels = (1.0,)
    offset: Channels = (0.0,)
    noise: float = 0.0
    noise_seed: int = 0
    saturation: float = 1.0
    hue: float = 0.0
    dropped: tuple[int, ...] = ()

    def apply(self, image: np.ndarray, values: ImageValues) -> np.ndarray:
        """Changes an image.

        Args:
            image: uint8, uint16 or float32 [H, W, C]; not modified.
            values: what its values mean.

        Returns:
            The same type and shape; ``image`` itself if there is nothing to do.
        """
        coloured = values.colour == "rgb" and (self.saturation != 1 or self.hue != 0)
        if not coloured and self == self._nothing():
            return image
        low, high = (_row(ends) for ends in (values.low, values.high))
        span = high - low
        t = (image.astype(np.float32) - low) / span
        if any(exponent != 1 for exponent in self.gamma):
            t = np.where(t > 0, np.power(np.maximum(t, 0), _row(self.gamma)), t)
        if coloured:
            t = _recoloured(t, self.saturation, self.hue)
        t = t * _row(self.gain) + _row(self.offset)
        if self.noise:
            rng = np.random.default_rng(self.noise_seed)
            t += np.float32(self.noise) * rng.standard_normal(t.shape, np.float32)
        changed = low + t * span
        if self.dropped:
            changed[..., list(self.dropped)] = _row(values.neutral)[list(self.dropped)]
        if image.dtype.kind == "f":
            return changed
        top = np.iinfo(image.dtype).max
        return np.clip(np.rint(changed), 0, top).astype(image.dtype)

    def _nothing(self) -> Intensity:
        """The draw that changes nothing but colours that are not there."""
        return Intensity(noise_seed=self.noise_seed, saturation=self.saturation, hue=self.hue)


def _row(numbers: Channels) -> np.ndarray:
    return np.array(numbers, np.float32)


def _recoloured(t: np.ndarray, saturation: float, hue: float) -> np.ndarray:
    """RGB float32 [H, W, 3], about 0 … 1, with another saturation and hue; values below 0 become 0."""
    hsv = cv2.cvtColor(np.maximum(t, 0), cv2.COLOR_RGB2HSV)  # H in 0 … 360, V unbounded
    hsv[..., 0] = (hsv[..., 0] + hue) % 360
    hsv[..., 1] = np.minimum(hsv[..., 1] * saturation, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
