"""What the images of a set are: by the headers of all files, and the values of some."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from jdet.data.invalid import valid_values
from jdet.data.readers.decoder import Decoder, travels_as, wrong_channels, wrong_dtype
from jdet.data.readers.header import Header, header_of
from jdet.data.readers.read import Image, name_of, read_stored
from jdet.data.readers.settings import ImageSettings
from jdet.data.readers.stored import Stored
from jdet.types import DataError, ImageKind

HEADERS = 20_000
"""Files of which the headers are read; of a larger set so many, evenly."""

LOOKS = 48
"""Images whose values are looked at, evenly."""

MOST_VALUES = 1 << 20
"""Of an image, that percentiles are taken of."""

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras and scanners give."""

_READERS = 8


class Survey(NamedTuple):
    """What was found.

    Attributes:
        kind: what the images are.
        measured: lowest and highest of the ``usual_bounds`` of images looked at; None where none was, as of
            8 bits.
        least_span: smallest difference of the two of an image; 0 where none was looked at.
        strays: by place, the file and the reason of each image whose header says it is of another kind.
        headers: images whose headers were read.
        known: images of which channels and type were found out, by header or by decoding them.
        notes: what is converted or lost on the way, a sentence each.
    """

    kind: ImageKind
    measured: tuple[float, float] | None
    least_span: float
    strays: dict[int, str]
    headers: int
    known: int
    notes: tuple[str, ...]


class Form(NamedTuple):
    """Channels and type of an image as far as the settings have been applied.

    Attributes:
        channels: without an alpha channel that is dropped.
        dtype: of the values.
        colour: three channels are red, green and blue.
        alpha: there was an alpha channel, which is not counted.
    """

    channels: int
    dtype: str
    colour: bool
    alpha: bool


def survey(
    count: int, image: Callable[[int], Image], settings: ImageSettings, *, files: bool = True
) -> Survey:
    """Finds out what the images of a set are.

    Args:
        count: images of the set.
        image: by place, as ``Example.image``.
        settings: what the config says of them.
        files: they are files, whose headers are quick to read; else only ``LOOKS`` are looked at.
    """
    places = _evenly(count, HEADERS if files else LOOKS)
    if files:
        with ThreadPoolExecutor(_READERS) as pool:
            headers = list(pool.map(lambda place: _headers(image(place)), places))
    else:
        headers = [_headers(image(place)) for place in places]
    forms = [None if parts is None else _form(parts, settings) for parts in headers]
    unknown = [i for i, form in enumerate(forms) if form is None]
    for i in (unknown[j] for j in _evenly(len(unknown), LOOKS)):
        forms[i] = _decoded_form(image(places[i]), settings)
    seen = [form for form in forms if form is not None]
    kind = settings.kind or _kind(seen, settings)
    decoder = Decoder(kind, settings)
    strays = {
        place: f"{name_of(image(place))}: {reason}"
        for place, form in zip(places, forms)
        if form is not None and (reason := _wrong(form, decoder))
    }
    extremes, measured, least_span = None, None, 0.0
    notes = _notes(headers, seen, kind, settings)
    deep = kind.dtype != "uint8"
    if deep or settings.value_range:
        good = [place for place in places if place not in strays]
        chosen = [good[i] for i in _evenly(len(good), LOOKS)]
        images = [image(place) for place in chosen]
        extremes, measured, least_span, more = _values(images, decoder)
        notes += more
        if not deep:  # which nothing is held against
            measured, least_span = None, 0.0
    if settings.kind is None:
        kind = kind._replace(value_range=_value_range(kind.dtype, extremes, settings))
    return Survey(kind, measured, least_span, strays, len(places), len(seen), tuple(notes))


def declared(kind: ImageKind, settings: ImageSettings) -> ImageKind:
    """What images that are all of a kind become."""
    if settings.kind is not None:
        return settings.kind
    form = _after(Form(kind.channels, kind.dtype, kind.colour == "rgb", False), settings)
    found = _kind([form] if form else [], settings)
    bounds = settings.value_range or kind.value_range  # as values are never scaled
    if found.dtype == "uint8" != kind.dtype:
        bounds = 0.0, 255.0
    low, high = map(float, bounds)
    return found._replace(value_range=(low, high))


def _evenly(count: int, most: int) -> list[int]:
    """At most so many whole numbers in 0 … count - 1, evenly."""
    if count <= most:
        return list(range(count))
    return np.unique(np.linspace(0, count - 1, most).round().astype(int)).tolist()


def _headers(image: Image) -> list[Header] | None:
    """The headers of an image's files; None where one cannot be told."""
    if isinstance(image, np.ndarray):
        return None
    parts = image if isinstance(image, (tuple, list)) else [image]
    headers = [header_of(part) for part in parts]
    return None if any(header is None for header in headers) else [h for h in headers if h]


def _form(parts: Sequence[Header], settings: ImageSettings) -> Form | None:
    """What an image becomes by its headers; None where it has too few channels for the bands wanted."""
    parts = [
        part._replace(channels=1, colour=False, alpha=False)
        if part.palette and settings.palette == "indices"
        else part
        for part in parts
    ]
    first = parts[0]
    if len(parts) > 1:
        channels = sum(part.channels - part.alpha for part in parts)
        dtype = str(np.result_type(*(np.dtype(part.dtype) for part in parts)))
        return _after(Form(channels, dtype, False, False), settings)
    return _after(Form(first.channels, first.dtype, first.colour, first.alpha), settings)


def _after(form: Form, settings: ImageSettings) -> Form | None:
    """A form with high byte, bands and alpha settled."""
    if settings.high_byte and form.dtype == "uint16":
        form = form._replace(dtype="uint8")
    if settings.bands:
        if max(settings.bands) >= form.channels:
            return None
        colour = form.colour and settings.bands == (0, 1, 2)
        return Form(len(settings.bands), form.dtype, colour, False)
    if form.alpha and form.channels != settings.count:
        return form._replace(channels=form.channels - 1)
    return form._replace(alpha=False)


def _decoded_form(image: Image, settings: ImageSettings) -> Form | None:
    try:
        stored: Stored = read_stored(image, "", settings)
    except DataError:
        return None  # told where the image is read
    form = Form(stored.pixels.shape[2], str(stored.pixels.dtype), stored.colour, stored.alpha)
    plain = ImageSettings(channels=settings.channels)  # bands and high byte are settled
    return _after(form, plain)


def _kind(forms: Sequence[Form], settings: ImageSettings) -> ImageKind:
    """The kind of most images; where grey and coloured ones are mixed, RGB."""
    dtype = settings.dtype
    if dtype == "auto":
        dtypes = Counter(travels_as(form.dtype) for form in forms)
        dtype = dtypes.most_common(1)[0][0] if dtypes else "uint8"
    channels, colour = settings.count, settings.channels
    if channels is None:
        counts = Counter((form.channels, form.colour) for form in forms)
        channels, coloured = counts.most_common(1)[0][0] if counts else (3, True)
        if channels == 1 and (3, True) in counts:
            channels, coloured = 3, True
        colour = "gray" if channels == 1 else "rgb" if channels == 3 and coloured else "bands"
    elif colour not in ("rgb", "gray"):
        colour = "gray" if channels == 1 else "bands"
    return ImageKind(channels=channels, colour=colour, dtype=dtype)


def _wrong(form: Form, decoder: Decoder) -> str:
    """Why an image cannot become one of the kind; "" where it can, or its values decide."""
    kind, settings = decoder.kind, decoder.settings
    grey = kind.colour == "rgb" and form.channels == 1
    brightness = kind.colour == "gray" and form.channels == 3 and form.colour
    if form.channels != kind.channels and not grey and not brightness:
        return wrong_channels(form.channels, decoder)
    travels = travels_as(form.dtype)
    if settings.dtype == "auto":
        fits = travels == kind.dtype
    else:
        fits = np.dtype(form.dtype).kind != "f" or kind.dtype == "float32"
    return "" if fits else wrong_dtype(form.dtype, decoder)


def _notes(
    headers: Sequence[list[Header] | None],
    forms: Sequence[Form],
    kind: ImageKind,
    settings: ImageSettings,
) -> list[str]:
    """What happens to images by their headers."""
    total = len(forms)

    def images_with(trait: Callable[[Header], bool]) -> int:
        """How many images have a file of which something holds."""
        return sum(any(map(trait, parts or ())) for parts in headers)

    notes = []
    grey = sum(form.channels == 1 for form in forms)
    if kind.colour == "rgb" and 0 < grey:
        what = f"{grey} of {total} images are grey and get three equal channels"
        if grey == total:
            what += "; --config.data.image.channels=gray takes one"
        notes.append(what)
    coloured = sum(form.channels == 3 and form.colour for form in forms)
    if kind.colour == "gray" and coloured:
        what = (
            "their brightness counts"
            if settings.channels == "gray"
            else "of equal channels one is taken"
        )
        notes.append(f"{coloured} of {total} images are coloured: {what}")
    if alpha := sum(form.alpha for form in forms):
        how = "is left out" if settings.alpha == "drop" else "must be opaque"
        notes.append(f"{alpha} of {total} images have an alpha channel, which {how}")
    if settings.high_byte and (deep := images_with(lambda header: header.dtype == "uint16")):
        notes.append(f"{deep} of {total} images have 16 bits, of which the high byte alone is kept")
    if palettes := images_with(lambda header: header.palette):
        notes.append(
            f"{palettes} of {total} images have a palette; its {settings.palette} are taken"
        )
    return notes


def _values(
    images: Sequence[Image], decoder: Decoder
) -> tuple[tuple[float, float] | None, tuple[float, float] | None, float, list[str]]:
    """Extremes, usual range and its least span of the values of some images, and what is odd about them."""
    extremes, usual, shifted, seen, outside = [], [], [], 0, 0
    limits = decoder.settings.value_range
    for image in images:
        try:
            pixels = decoder(image)
        except DataError:
            continue  # told where the image is read
        valid = pixels[valid_values(pixels, decoder.settings.invalid)]
        if not valid.size:
            continue
        extremes.append((float(valid.min()), float(valid.max())))
        usual.append(usual_bounds(pixels, decoder.settings.invalid) or extremes[-1])
        if limits:
            seen += valid.size
            outside += int(((valid < limits[0]) | (valid > limits[1])).sum())
        if pixels.dtype == np.uint16:
            shifted.append(_only_high_byte(pixels))
    if not extremes:
        return None, None, 0.0, []
    notes, high = [], max(high for _, high in extremes)
    if outside:
        least, most = _around(extremes)
        notes.append(
            f"{outside:,} of {seen:,} values of {len(extremes)} images looked at ({outside / seen:.2%}) "
            f"lie outside config.data.image.value_range={tuple(limits)}; they are kept as they are, and "
            f"the range stays. The values are {least:.6g} … {most:.6g}"
        )
    if decoder.kind.dtype == "uint16":
        if high <= 255:
            notes.append(
                f"16-bit images that use 8 bits (largest value {high:g}): they are taken as they are, in "
                "twice the memory; --config.data.image.dtype=uint8 takes the same values as 8-bit images"
            )
        elif shifted and all(shifted):
            notes.append(
                "16-bit images that carry 8 bits, as every low byte is 0 or equals the high one: "
                "--config.data.image.high_byte=True takes the same in half the memory"
            )
    spans = [high - low for low, high in usual if high > low]
    return _around(extremes), _around(usual), min(spans, default=0.0), notes


def _around(bounds: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in bounds), max(high for _, high in bounds)


def usual_bounds(pixels: np.ndarray, invalid: float | None = None) -> tuple[float, float] | None:
    """The 0.1 and the 99.9 percentile of the values that were measured (``valid_values``).

    A dead or saturated pixel does not move them. Of large images rows and columns are left out evenly.

    Args:
        pixels: [H, W, C].
        invalid: as ``valid_values``.

    Returns:
        Lower and upper; None where nothing was measured.
    """
    step = math.ceil(math.sqrt(pixels.size / MOST_VALUES))
    pixels = pixels[::step, ::step]
    valid = pixels[valid_values(pixels, invalid)]
    if not valid.size:
        return None
    low, high = np.percentile(valid, (0.1, 99.9))
    return float(low), float(high)


def _only_high_byte(pixels: np.ndarray) -> bool:
    low, high = pixels & 255, pixels >> 8
    return bool((low == 0).all() or (low == high).all())


def _value_range(
    dtype: str, measured: tuple[float, float] | None, settings: ImageSettings
) -> tuple[float, float]:
    """As ``ImageKind`` has it."""
    if settings.value_range:
        low, high = map(float, settings.value_range)
        return low, high
    if dtype == "uint8":
        return 0.0, 255.0
    if dtype == "uint16":
        used = int(measured[1] if measured else 65535).bit_length()
        return 0.0, float(2 ** next(bits for bits in DEPTHS if bits >= used) - 1)
    low, high = measured or (0.0, 1.0)
    return low, high if high > low else low + 1.0


def describe(found: Survey, count: int) -> str:
    """One line for the log."""
    by = f"headers of {'all' if found.headers == count else 'some'} {found.headers:,} images"
    strays = f"; {len(found.strays)} are of another kind" if found.strays else ""
    return f"{found.kind} ({by}{strays})"
