"""Checked objects of a whole data set in flat arrays: what every source on disk is made of.

A label file is read once, in the constructor of its source. Every box is checked there against its
image; what is wrong is dropped or clipped and listed as a ``Defect``, never silently. What
remains is a handful of arrays, so that a source of 100,000 images pickles to a worker in a
moment and ``source[i]`` reads no label file.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jdet.data.image_formats import diagnosis
from jdet.data.image_io import upright_size
from jdet.data.readers.header import scientific, size_of
from jdet.data.readers.regular_file import open_regular
from jdet.data.sources.label_text import class_name
from jdet.types import DataError, OfficialObjects, nearest, require

# Label files round to 0.01 pixel (COCO) or to float32 of a relative coordinate (TFDS): a box that
# leaves its image by less than this is clipped without being called a defect.
ROUNDING = 0.02

REASONS = 3
"""Defects that an error lists."""


class Defect(NamedTuple):
    """One thing wrong in a label file that did not stop the run.

    Attributes:
        id: image it belongs to, as in ``Example.id``.
        what: ``"empty"``, ``"inverted"`` or ``"outside"`` (box dropped), ``"clipped"`` (box kept),
            ``"skipped"`` (the whole image is left out), ``"no mask"`` (of an object among others that have
            masks; the box is kept), ``"mask cut"`` (it leaves its box: the part inside is kept).
        detail: class and labelled coordinates, or the error that was skipped.
    """

    id: str
    what: str
    detail: str


def check_boxes(
    boxes: np.ndarray, sizes: np.ndarray, extents: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clips boxes to their images and says which of them are usable.

    Args:
        boxes: [n, 4], x1 y1 x2 y2 in continuous pixels of the original image.
        sizes: [n, 2] or [2], heights and widths of the images.
        extents: [n, 2], widths and heights as the label file means them, where that differs from
            the boxes (VOC's ``xmax - xmin``); a box without positive extent is not kept.

    Returns:
        The boxes clipped, float64 [n, 4]; bool [n], those to keep; text [n], what is wrong as in
        ``Defect.what``, ``""`` for nothing.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    extents = boxes[:, 2:] - boxes[:, :2] if extents is None else extents
    limit = np.asarray(sizes, np.float64)[..., [1, 0, 1, 0]]
    clipped = np.clip(boxes, 0.0, limit)
    positive = np.all(extents > 0, axis=1)
    inside = np.all(clipped[:, 2:] > clipped[:, :2], axis=1)  # False for NaN
    inverted = np.any(extents < 0, axis=1)
    moved = np.abs(clipped - boxes).max(axis=1, initial=0.0) > ROUNDING
    verdicts = np.select(
        [inverted, ~positive, ~inside, moved], ["inverted", "empty", "outside", "clipped"], ""
    )
    return clipped, np.logical_and(positive, inside), verdicts


def check_classes(classes: Sequence[str], where: str) -> tuple[str, ...]:
    """A list of class names as a tuple of text; refuses a bare string, an empty list and doubles.

    Raises:
        DataError: naming ``where`` the list came from.
    """
    if isinstance(classes, str):
        raise DataError(f"{where}: classes must be a list of names, not the text {classes!r}")
    classes = tuple(class_name(name, where) for name in classes)
    if not classes:
        raise DataError(f"{where}: the list of classes is empty")
    doubles = [name for name, n in Counter(classes).items() if n > 1]
    if doubles:
        raise DataError(f"{where}: classes named twice: {', '.join(map(repr, doubles))}")
    return classes


def unknown_class(name: str, classes: Sequence[str], where: str) -> DataError:
    """The error for a class in a label file that the class list lacks."""
    return DataError(
        f"{where}: class {name!r} is not in the list of {len(classes)} classes "
        f"({', '.join(classes)}){nearest(name, classes)}; correct the label file or name all "
        "classes: classes=a+b of the experiments on your own images, elsewhere "
        "--config.data.train.classes and --config.data.eval.classes"
    )


def check_on_error(on_error: str) -> bool:
    """True for ``"skip"``, False for ``"raise"``; anything else is an error."""
    require(on_error in ("raise", "skip"), "on_error", on_error, "'raise' or 'skip'")
    return on_error == "skip"


def read_image_size(file: str | tuple[str, ...] | bytes) -> tuple[int, int]:
    """Height and width of an image, upright, from its header; pixels are hardly ever decoded.

    Args:
        file: path, paths of an image of several files, or the encoded bytes.

    Raises:
        DataError: the file is not an image.
    """
    if isinstance(file, tuple):
        file = file[0]
    from PIL import Image, UnidentifiedImageError

    name = "encoded image" if isinstance(file, bytes) else file
    try:
        head = file if isinstance(file, bytes) else _head(file)
        if scientific(head):
            return size_of(file if isinstance(file, bytes) else Path(file).read_bytes(), name)
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            return upright_size(image)
    except UnidentifiedImageError as error:
        data = file if isinstance(file, bytes) else Path(file).read_bytes()
        what = diagnosis(data) if data else "the file is empty"
        raise DataError(f"{name}: cannot read the image's size: {what}") from error
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: cannot read the image's size: {error}") from error


def _head(path: str) -> bytes:
    with open_regular(path) as file:
        return file.read(132)


class Object(NamedTuple):
    """One object as a label file has it, unchecked.

    Attributes:
        box: x1 y1 x2 y2 in continuous pixels of the original image.
        extent: width and height as labelled; a box without positive extent is dropped.
        written: the four coordinates as they stand in the file, for the list of defects.
        label: 0 … K-1.
        ignore: difficult or crowd.
        area: square pixels as labelled, or None for the area of the box.
        sides: width and height where the file has them; None: differences of ``box``, which round.
    """

    box: tuple[float, float, float, float]
    extent: tuple[float, float]
    written: Sequence[float]
    label: int
    ignore: bool
    area: float | None = None
    sides: tuple[float, float] | None = None


class LabelTable(NamedTuple):
    """The objects of all images.

    Attributes:
        ids: name of each image.
        sizes: int32 [n, 2], heights and widths.
        offsets: int64 [n + 1]; image i has the objects ``offsets[i]:offsets[i + 1]``.
        boxes: float32 [m, 4], x1 y1 x2 y2 in continuous pixels of the original image.
        labels: int32 [m].
        ignore: bool [m].
        areas: float32 [m].
        defects: everything dropped, clipped or skipped.
        official: the objects of all images as labelled, those that were dropped included.
        official_offsets: int64 [n + 1], as ``offsets``.
        kept: bool, the objects of ``official`` that are among the m.
        ranks: int64 [n], as ``OfficialObjects.rank``.
    """

    ids: tuple[str, ...]
    sizes: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    areas: np.ndarray
    defects: list[Defect]
    official: OfficialObjects
    official_offsets: np.ndarray
    kept: np.ndarray
    ranks: np.ndarray


def first_reasons(defects: Sequence[Defect]) -> str:
    """The first defects in words, for the end of a message; "" where there are none."""
    if not defects:
        return ""
    shown = "; ".join(f"{defect.id}: {defect.detail}" for defect in defects[:REASONS])
    more = f"; and {len(defects) - REASONS} more" if len(defects) > REASONS else ""
    return f": {shown}{more}"


class LabelBuilder:
    """Collects the objects of a data set image by image and checks them all at once."""

    def __init__(self, name: str) -> None:
        """Starts with nothing; ``name`` is the data set's, for messages."""
        self._name = name
        self._ids: list[str] = []
        self._sizes: list[tuple[int, int]] = []
        self._counts: list[int] = []
        self._rows: list[Object] = []
        self._skipped: list[Defect] = []

    def add(self, id: str, size: tuple[int, int], objects: Sequence[Object]) -> None:
        """Takes one image: its name, height and width, objects."""
        self._ids.append(id)
        self._sizes.append(size)
        self._counts.append(len(objects))
        self._rows.extend(objects)

    def skip(self, id: str, error: Exception) -> None:
        """Notes an image that is left out because of ``error``."""
        self._skipped.append(Defect(id, "skipped", str(error)))

    def build(self, class_names: Sequence[str], ranks: ArrayLike | None = None) -> LabelTable:
        """Checks every box.

        Args:
            class_names: label → name, for the list of defects.
            ranks: place of each image in the official order; None: as they were added.

        Raises:
            DataError: all images were skipped; with the first reasons.
        """
        if not self._ids:
            raise DataError(
                f"{self._name}: none of its {len(self._skipped)} images can be used"
                f"{first_reasons(self._skipped)}"
            )
        boxes = np.array([row.box for row in self._rows], np.float64).reshape(-1, 4)
        extents = np.array([row.extent for row in self._rows], np.float64).reshape(-1, 2)
        labels = np.array([row.label for row in self._rows], np.int32)
        ignore = np.array([row.ignore for row in self._rows], bool)
        sizes = np.array(self._sizes, np.int32).reshape(-1, 2)
        owner = np.repeat(np.arange(len(self._ids)), self._counts)
        clipped, keep, verdicts = check_boxes(boxes, sizes[owner], extents)

        defects = list(self._skipped)
        for row in np.flatnonzero(verdicts != "").tolist():
            height, width = sizes[owner[row]].tolist()
            coordinates = ", ".join(f"{value:.6g}" for value in self._rows[row].written)
            detail = f"{class_names[labels[row]]} {coordinates} in {width}x{height}"
            defects.append(Defect(self._ids[owner[row]], str(verdicts[row]), detail))

        kept = clipped[keep]
        written = np.array([np.nan if row.area is None else row.area for row in self._rows], float)
        areas = written.astype(np.float32)[keep]
        sides = kept[:, 2:] - kept[:, :2]
        exact = [row.sides or np.subtract(row.box[2:], row.box[:2]) for row in self._rows]
        xywh = np.concatenate([boxes[:, :2], np.array(exact, float).reshape(-1, 2)], axis=1)
        return LabelTable(
            ids=tuple(self._ids),
            sizes=sizes,
            offsets=_offsets(np.bincount(owner[keep], minlength=len(self._ids))),
            boxes=kept.astype(np.float32),
            labels=labels[keep],
            ignore=ignore[keep],
            areas=np.where(np.isnan(areas), sides[:, 0] * sides[:, 1], areas).astype(np.float32),
            defects=defects,
            official=OfficialObjects(
                xywh=xywh,
                labels=labels,
                ignore=ignore,
                areas=np.where(np.isnan(written), xywh[:, 2] * xywh[:, 3], written),
            ),
            official_offsets=_offsets(self._counts),
            kept=keep,
            ranks=np.arange(len(sizes)) if ranks is None else np.asarray(ranks, np.int64),
        )


def _offsets(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
