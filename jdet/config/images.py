"""What a config says of images, and what the data they were trained on turned out to be."""

from __future__ import annotations

from ml_collections import ConfigDict

from jdet.data.readers.settings import ImageSettings
from jdet.types import ConfigError, ImageKind


def image_settings(config: ConfigDict) -> ImageSettings:
    """The group ``data.image`` of a whole config; with the kind that was found, where one was.

    Raises:
        ConfigError: a value is none of those allowed.
    """
    values = config.data.image.to_dict()
    found = values.pop("found")
    return ImageSettings(**values, kind=image_kind(config) if found["channels"] else None)


def image_kind(config: ConfigDict) -> ImageKind:
    """What the images of a config are, as far as it is known without the data.

    Raises:
        ConfigError: only the data say how many channels there are.
    """
    group = config.data.image
    found = group.found
    if found.channels:
        low, high = found.value_range
        return ImageKind(found.channels, found.colour, found.dtype, (low, high))
    channels = {"rgb": 3, "gray": 1}.get(group.channels, group.channels)
    if channels == "auto":
        raise ConfigError(
            "config.data.image.channels='auto' leaves the number of channels to the data, which were not "
            "looked at; say it: --config.data.image.channels=3"
        )
    channels = int(channels)
    colour = (
        group.channels
        if group.channels in ("rgb", "gray")
        else "gray"
        if channels == 1
        else "bands"
    )
    dtype = "uint8" if group.dtype == "auto" else group.dtype
    bounds = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}.get(dtype, (0.0, 1.0))
    low, high = group.value_range or bounds
    return ImageKind(channels, colour, dtype, (float(low), float(high)))


def trained_range(config: ConfigDict) -> tuple[float, float]:
    """Lowest and highest value that the images of training have, as far as was found out.

    It is the range of ``image_kind``, and more where ``data.image.value_range`` is narrower than the data.
    """
    low, high = image_kind(config).value_range
    reached = tuple(config.data.image.found.reached)
    return (min(low, reached[0]), max(high, reached[1])) if reached else (low, high)


def set_found(
    config: ConfigDict,
    kind: ImageKind,
    least_span: float,
    files: str,
    usual: tuple[float, float] | None = None,
) -> None:
    """Writes down what the images of the training data are.

    Args:
        config: changed.
        kind: of the images.
        least_span: smallest difference of two values of an image.
        files: pattern of the files of an image that the data follow; "" for none.
        usual: lowest and highest usual value of those looked at; None: none were.
    """
    found = config.data.image.found
    found.update(kind._asdict())
    found.value_range = tuple(map(float, kind.value_range))
    found.least_span, found.files = min(float(least_span), 1e12), files
    low, high = kind.value_range
    beyond = config.data.image.value_range and usual and (usual[0] < low or usual[1] > high)
    found.reached = tuple(map(float, usual)) if usual and beyond else ()
