"""Whether values are of the range that was trained on."""

from __future__ import annotations

FAINT = 0.1
"""Share of the least span of a training image, under which the values of an image are in another unit."""


def wrong_values(
    bounds: tuple[float, float], trained: tuple[float, float], least_span: float
) -> str:
    """What is wrong with values; "" where they can be those of images as they were trained on.

    They may leave the range of training by as much as it is wide: other images are brighter. But 16 bits
    are not 12, and 0 … 1 is not 0 … 255.

    Args:
        bounds: lower and upper end of the usual ones, as ``usual_bounds``.
        trained: lowest and highest value of the training images.
        least_span: smallest difference of these ends of one of them; 0: not known.
    """
    low, high = bounds
    bottom, top = trained
    width = top - bottom
    remedy = "give images in the unit of training, or train again on such as these"
    if low < bottom - width or high > top + width:
        return (
            f"values {low:.6g} … {high:.6g}, far outside those of training, {bottom:.6g} … {top:.6g}; "
            f"{remedy}"
        )
    if 0 < high - low < FAINT * least_span:
        return (
            f"values {low:.6g} … {high:.6g}, which differ by less than a tenth of those of any image of "
            f"training ({least_span:.6g}); {remedy}"
        )
    return ""
