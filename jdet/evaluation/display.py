"""Images of any kind as people look at them: three 8-bit channels, stretched from image to image."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jdet.data.invalid import valid_values
from jdet.types import ConfigError, ImageKind, require

NOTHING = 24
"""Level at which invalid values are shown, and images without a valid one."""


@dataclasses.dataclass(frozen=True)
class Display:
    """How the values of images become colours.

    8-bit images of one or three channels are shown as they are. Of all others each shown channel is
    stretched: the percentiles of the image's own valid values become black and white. The three channels
    of RGB are stretched alike, so that colours stay. Without ``bands``, one channel is shown grey, two as
    magenta and green (where both are bright, white), and of more the first three as red, green and blue.

    Attributes:
        bands: channels shown as red, green and blue, counted from 0; one: as grey; empty: as above.
        percentiles: of each shown channel, 0 … 100, that become black and white.
        colour: as in ``ImageKind``.
        invalid: value that stands for "nothing measured"; NaN and infinity always do.

    Raises:
        ConfigError: a value is out of range; the message names the key.
    """

    bands: tuple[int, ...] = ()
    percentiles: tuple[float, float] = (1.0, 99.0)
    colour: str = "rgb"
    invalid: float | None = None

    def __post_init__(self) -> None:
        fine = len(self.bands) in (0, 1, 3) and all(type(b) is int and b >= 0 for b in self.bands)
        require(fine, "config.eval.drawn_bands", self.bands, "(), or one or three channels from 0")
        low, high = self.percentiles if len(self.percentiles) == 2 else (1, 0)
        require(
            0 <= low < high <= 100,
            "config.eval.drawn_percentiles",
            self.percentiles,
            "two rising numbers in 0 … 100, such as (1.0, 99.0)",
        )

    @classmethod
    def of(cls, config: Any, kind: ImageKind) -> Display:
        """As a whole config says it, for images of a kind.

        Raises:
            ConfigError: a value is out of range, or a band is not there.
        """
        shown = cls(
            bands=tuple(config.eval.drawn_bands),
            percentiles=tuple(config.eval.drawn_percentiles),
            colour=kind.colour,
            invalid=config.data.image.invalid,
        )
        shown.check(kind.channels)
        return shown

    def check(self, channels: int) -> None:
        """Refuses bands that images of so many channels do not have.

        Raises:
            ConfigError: names them.
        """
        if self.bands and max(self.bands) >= channels:
            raise ConfigError(
                f"config.eval.drawn_bands={self.bands}: the images have {channels} channel(s), counted "
                "from 0; --config.eval.drawn_bands='()' shows the first"
            )

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """An image [H, W, C] of any type as uint8 [H, W, 3], RGB; itself where it is that already.

        Raises:
            ConfigError: a band is not there.
        """
        channels = image.shape[2]
        self.check(channels)
        plain = image.dtype == np.uint8 and channels in (1, 3)
        if plain and not self.bands:
            return image if channels == 3 else np.repeat(image, 3, axis=2)
        bands = self.bands or {1: (0,), 2: (0, 1, 0)}.get(channels, (0, 1, 2))
        chosen = image[..., list(bands)]
        if plain:
            return np.repeat(chosen, 3 // len(bands), axis=2)
        together = self.colour == "rgb" and channels == 3
        groups = [chosen] if together else [chosen[..., c : c + 1] for c in range(len(bands))]
        shown = np.concatenate([self._stretched(group) for group in groups], axis=2)
        return np.repeat(shown, 3 // len(bands), axis=2)

    def _stretched(self, values: np.ndarray) -> np.ndarray:
        """Values [H, W, c] stretched by percentiles of all of them, uint8."""
        valid = valid_values(values, self.invalid)
        if not valid.any():
            return np.full(values.shape, NOTHING, np.uint8)
        wide = values.astype(np.float64)
        known = wide[valid]
        low, high = np.percentile(known, self.percentiles)
        if low == high:  # few values differ: show those too
            low, high = known.min(), known.max()
        scale = 255 / (high - low) if high > low else 0.0
        middle = 0.0 if scale else 128.0  # a constant image is grey
        wide[~valid] = low
        grey = np.clip(np.rint((wide - low) * scale + middle), 0, 255).astype(np.uint8)
        grey[~valid] = NOTHING
        return grey


USUAL = Display()
"""Of images that nothing is said of."""
