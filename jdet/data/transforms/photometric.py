"""Photometric distortion of SSD: brightness, contrast, saturation, hue on 8-bit images.

Numbers and order are those of the Caffe SSD data transformer (``distort_param`` of its training
scripts; SSD's "new" augmentation, also used by ScratchDet and DSOD). Every operation rounds and
saturates to 0 … 255, so runs of operations that look at one channel value at a time are exactly one
look-up table. Saturation and hue are neighbours in both orders and share one trip through HSV. Images of
another kind are changed in the range of their values (``jdet.data.transforms.intensity``).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from jdet.data.transforms.intensity import ImageValues, Intensity

BRIGHTNESS = 32.0  # largest shift, in grey levels
CONTRAST = (0.5, 1.5)  # factor of all channels
SATURATION = (0.5, 1.5)  # factor of S in HSV
HUE = 18.0  # largest shift, in OpenCV's 8-bit hue units of two degrees

_LEVELS = np.arange(256, dtype=np.float32)


class Distortion(NamedTuple):
    """One draw of the four operations; the defaults change nothing.

    Attributes:
        brightness: added to all channels.
        contrast: multiplies all channels (about zero, not about the mean).
        saturation: multiplies S in HSV.
        hue: added to H in units of two degrees, wrapping around.
        contrast_first: contrast comes before saturation and hue, not after them.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    contrast_first: bool = True

    def apply(self, image: np.ndarray, values: ImageValues) -> np.ndarray:
        """Changes an image of any kind: 8-bit RGB by ``distort``, others by the ``intensity``.

        Args:
            image: uint8, uint16 or float32 [H, W, C]; not modified.
            values: what its values mean.
        """
        if image.dtype == np.uint8 and values.colour == "rgb":
            return distort(image, self)
        return self.intensity().apply(image, values)

    def intensity(self) -> Intensity:
        """The same in shares of a range of values, contrast about its lower end; saturation comes first."""
        return Intensity(
            gain=(self.contrast,),
            offset=(self.contrast * self.brightness / 255,),
            saturation=self.saturation,
            hue=2 * self.hue,
        )


NO_DISTORTION = Distortion()


def draw_distortion(rng: np.random.Generator, probability: float) -> Distortion:
    """Draws a distortion; each operation fires independently.

    Args:
        rng: nine numbers are taken from it, whatever fires.
        probability: of each operation (0.5 in SSD).
    """
    u = rng.random(9).tolist()
    fires = [v < probability for v in u[:4]]
    return Distortion(
        brightness=BRIGHTNESS * (2 * u[4] - 1) if fires[0] else 0.0,
        contrast=_between(*CONTRAST, u[5]) if fires[1] else 1.0,
        saturation=_between(*SATURATION, u[6]) if fires[2] else 1.0,
        hue=HUE * (2 * u[7] - 1) if fires[3] else 0.0,
        contrast_first=u[8] < 0.5,
    )


def distort(image: np.ndarray, distortion: Distortion) -> np.ndarray:
    """Applies a distortion.

    Caffe goes through HSV once for saturation and once for hue; here they share the trip, which
    saves a rounding to 8 bits. Its hue saturates at 0 from below; here it wraps at both ends.

    Args:
        image: uint8 [H, W, 3], RGB; not modified.
        distortion: what to do.

    Returns:
        uint8 [H, W, 3]; ``image`` itself if there is nothing to do.
    """
    brightness, contrast, saturation, hue, contrast_first = distortion
    before = _tone_table(brightness, contrast if contrast_first else 1.0)
    after = _tone_table(0.0, 1.0 if contrast_first else contrast)
    colour = _hsv_table(saturation, hue)
    if colour is None and before is not None and after is not None:
        before, after = after[before], None
    if before is not None:
        image = cv2.LUT(image, before)
    if colour is not None:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        image = cv2.cvtColor(cv2.LUT(image, colour), cv2.COLOR_HSV2RGB)
    if after is not None:
        image = cv2.LUT(image, after)
    return image


def _between(low: float, high: float, u: float) -> float:
    return low + (high - low) * u


def _saturate(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _tone_table(brightness: float, contrast: float) -> np.ndarray | None:
    """uint8 [256]: brightness, then contrast; None for the identity."""
    if not brightness and contrast == 1.0:
        return None
    levels = _saturate(_LEVELS + brightness) if brightness else _LEVELS
    return _saturate(levels * np.float32(contrast))


def _hsv_table(saturation: float, hue: float) -> np.ndarray | None:
    """uint8 [256, 1, 3] for H, S, V; None for the identity."""
    if saturation == 1.0 and not hue:
        return None
    table = np.empty((256, 1, 3), np.uint8)
    table[:, 0, 0] = np.rint(_LEVELS + hue) % 180
    table[:, 0, 1] = _saturate(_LEVELS * saturation)
    table[:, 0, 2] = _LEVELS
    return table
