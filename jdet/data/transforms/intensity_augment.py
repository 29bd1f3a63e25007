"""Augmentation "intensity": SSD's geometry with photometric changes for images of any kind."""

from __future__ import annotations

import dataclasses

import numpy as np

from jdet.data.transforms.element import Element
from jdet.data.transforms.intensity import Channels, Intensity
from jdet.data.transforms.ssd import SSDAugment


@dataclasses.dataclass(frozen=True)
class IntensityAugment(SSDAugment):
    """Changes of gain, offset, gamma and noise in the range of the data's values, and lost channels.

    Each change of an image is drawn with the probability ``photometric``. Geometry and all other keys are
    those of ``SSDAugment``, as is the order: changes of values, zoom-out, crop, resize, flip.

    Attributes:
        gain: factors are drawn from 1 - gain … 1 + gain.
        offset: largest shift, share of the range of values.
        gamma: exponents are drawn from e^-gamma … e^gamma.
        noise: largest standard deviation of noise, share of the range of values.
        channelwise: each channel has its own gain, offset and gamma, as of several sensors.
        drop: probability that a channel becomes its mean, for each channel; one at least stays.
        saturation: of RGB, factors are drawn from 1 - saturation … 1 + saturation.
        hue: of RGB, largest turn of the colour circle, degrees.
    """

    gain: float = 0.3
    offset: float = 0.1
    gamma: float = 0.3
    noise: float = 0.02
    channelwise: bool = False
    drop: float = 0.0
    saturation: float = 0.5
    hue: float = 36.0

    def _photometric(self, element: Element, rng: np.random.Generator) -> Element:
        if element.image is None:
            return element
        drawn = self.draw(rng, element.image.shape[2])
        return element._replace(distortion=drawn)

    def draw(self, rng: np.random.Generator, channels: int) -> Intensity:
        """Draws a change; each of its parts fires independently.

        Args:
            rng: as many numbers are taken from it, whatever fires.
            channels: of the image.
        """
        fires = (rng.random(6) < self.photometric).tolist()
        width = channels if self.channelwise else 1
        turns = 2 * rng.random((3, width)) - 1  # -1 … 1
        noise, saturation, hue = rng.random(3).tolist()
        seed = int(rng.integers(1 << 31))
        lost = rng.random(channels) < self.drop
        if lost.all():
            lost[int(rng.random() * channels)] = False

        def of(place: int, values: np.ndarray, otherwise: float) -> Channels:
            return tuple(values.tolist()) if fires[place] else (otherwise,)

        return Intensity(
            gamma=of(0, np.exp(self.gamma * turns[0]), 1.0),
            gain=of(1, 1 + self.gain * turns[1], 1.0),
            offset=of(2, self.offset * turns[2], 0.0),
            noise=self.noise * noise if fires[3] else 0.0,
            noise_seed=seed,
            saturation=1 + self.saturation * (2 * saturation - 1) if fires[4] else 1.0,
            hue=self.hue * (2 * hue - 1) if fires[5] else 0.0,
            dropped=tuple(np.flatnonzero(lost).tolist()),
        )
