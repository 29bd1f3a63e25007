"""The images of a report: which are shown, at which size, with which boxes and outlines.

All of them have to fit into one page of a few megabytes, so there are budgets: of images, of bytes and of
boxes. What is left out is counted, for the page to say so.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from jdet.data.readers.decoder import Decoder
from jdet.data.segmentation import decode, polygons
from jdet.evaluation.display import Display
from jdet.html_report.matching import Matched, levels
from jdet.types import DataError, Source

MOST = 120
"""Images in a page."""

_BYTES = 2_300_000  # of all JPEG files together; a third more in the page
_SIDE, _SMALLEST = 512, 128  # longer side of an image; smaller ones stay as they are
_QUALITY = 78
_BOXES, _OBJECTS = 9_000, 9_000  # of all images together
_OUTLINES = 700_000  # characters of all outlines together
_DIGITS = 10  # coordinates are whole tenths of pixels


def choose(
    matched: Sequence[Matched],
    threshold: float,
    wanted: Iterable[int] = (),
    most: int = MOST,
) -> list[int]:
    """The images to show, worst first.

    Args:
        matched: all images.
        threshold: score from which detections count.
        wanted: images that are shown before others, at most a quarter of all.
        most: how many.

    Returns:
        Indices into ``matched``: all where they are few enough; else some that are wanted, the worst, a
        few of the best, one at least of every class as far as that goes, and others evenly spread.
    """
    f1 = [image.f1(threshold) for image in matched]
    errors = [sum(image.counts(threshold)[1:]) for image in matched]
    worst = sorted(range(len(matched)), key=lambda i: (f1[i], -errors[i]))
    room = _OBJECTS
    most = min(most, len(matched))
    seen: set[int] = set()
    of_class = []
    for i in worst[::-1]:
        own = set(np.asarray(matched[i].labels).tolist()) - seen
        seen |= own
        of_class += [i] * bool(own)
    spread = [worst[i * len(worst) // most] for i in range(most)] if most else []
    plans = (
        (list(dict.fromkeys(wanted)), most // 4),
        (worst, most // 3),
        (worst[::-1], most // 8),
        (of_class, most // 4),
        (spread, most),
        (worst, most),
    )
    chosen: dict[int, None] = {}
    for candidates, share in plans:
        taken = 0
        for i in candidates:
            if len(chosen) >= most or taken >= share:
                break
            if i not in chosen and (not chosen or len(matched[i].labels) <= room):
                chosen[i] = None
                room -= len(matched[i].labels)
                taken += 1
    return [i for i in worst if i in chosen]


def make(
    chosen: Sequence[int],
    matched: Sequence[Matched],
    source: Source,
    places: Mapping[int, int],
    display: Display,
) -> list[dict[str, Any]]:
    """The records of the page's images.

    Args:
        chosen: of ``choose``.
        matched: all images.
        source: of the images.
        places: by index into ``matched`` that in the source.
        display: makes images for people of them.

    Returns:
        For each image that can be read: ``name``; ``jpeg``, in base64; ``size``, its width and height as
        shown; ``scale``, of the shown to the original; ``objects`` and ``detections``, flat lists of six
        and of seven whole numbers each: x1 y1 x2 y2 in tenths of shown pixels and the label, then for
        objects 1 where ignored, and for detections the score in thousandths (rounded down) and the
        outcome (``matching``); ``left_out``, detections without a place; with masks ``object_outlines`` and
        ``outlines``, SVG paths or "" each.
    """
    read = Decoder.of(source)
    shown = []
    for i in chosen:
        example = source[places[i]]
        path = isinstance(example.image, (str, tuple))
        try:
            image = display(read(example.image, "" if path else example.id))
        except DataError:  # the evaluation left it out as well, or it is gone since
            continue
        shown.append((i, image.shape[:2], _resized(image, _SIDE)))
    files, sides = _encode([image for _, _, image in shown])
    each = max(20, _BOXES // max(len(shown), 1))
    outlines = _Outlines()
    records = []
    for (i, size, _), file, (height, width) in zip(shown, files, sides, strict=True):
        one = matched[i]
        found = one.detections.select(np.arange(min(each, len(one.outcome))))
        scale = np.array([width / size[1], height / size[0]] * 2) * _DIGITS
        record = {
            "name": one.detections.id,
            "jpeg": base64.b64encode(file).decode("ascii"),
            "size": [width, height],
            "scale": width / size[1],
            "objects": _flat(one.boxes * scale, one.labels, one.ignore),
            "detections": _flat(
                found.boxes * scale,
                found.labels,
                levels(found.scores, 1000),
                one.outcome[: len(found.scores)],
            ),
            "left_out": len(one.outcome) - len(found.scores),
        }
        if one.masks is not None or found.masks is not None:
            some = one.masks or ()
            record["object_outlines"] = [outlines(m, size, (height, width)) for m in some]
            record["outlines"] = [outlines(m, size, (height, width)) for m in found.masks or ()]
        records.append(record)
    return records


def _flat(boxes: np.ndarray, *columns: np.ndarray) -> list[int]:
    if not len(boxes):
        return []
    rows = np.concatenate([boxes, *(np.asarray(c, float)[:, None] for c in columns)], axis=1)
    return np.rint(rows).astype(int).ravel().tolist()


def _resized(image: np.ndarray, side: float) -> np.ndarray:
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = tuple(max(1, round(length * scale)) for length in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _encode(images: Sequence[np.ndarray]) -> tuple[list[bytes], list[tuple[int, int]]]:
    """JPEG files within the budget, and height and width of each; the larger the budget, the larger."""
    side = float(max((max(image.shape[:2]) for image in images), default=_SIDE))
    while True:
        small = [_resized(image, side) for image in images]
        files = [_jpeg(image) for image in small]
        total = sum(map(len, files))
        if total <= _BYTES or side <= _SMALLEST:
            return files, [(image.shape[0], image.shape[1]) for image in small]
        side = max(_SMALLEST, side * min(0.95, (_BYTES / total) ** 0.5))


def _jpeg(image: np.ndarray) -> bytes:
    done, data = cv2.imencode(
        ".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    assert done, image.shape
    return data.tobytes()


class _Outlines:
    """Outlines of masks as SVG paths, until their budget is used up."""

    def __init__(self) -> None:
        self._left = _OUTLINES

    def __call__(self, mask: Any, size: tuple[int, int], shown: tuple[int, int]) -> str:
        """The path of a segmentation in pixels of the shown image; "" without one, or beyond the budget."""
        if mask is None or self._left <= 0:
            return ""
        try:
            if isinstance(mask, Mapping):
                pixels = np.ascontiguousarray(decode(mask, *size))
                rings, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
                rings = [ring.reshape(-1, 2) + 0.5 for ring in rings]
            else:
                rings = [np.reshape(part, (-1, 2)) for part in polygons(mask)]
        except ValueError:  # no evaluation of masks took it either
            return ""
        scale = np.array([shown[1] / size[1], shown[0] / size[0]])
        path = "".join(_path(ring * scale) for ring in rings)
        self._left -= len(path)
        return path


def _path(ring: np.ndarray) -> str:
    points = cv2.approxPolyDP(ring.astype(np.float32).reshape(-1, 1, 2), 0.6, True).reshape(-1, 2)
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points.tolist()) + "Z"
