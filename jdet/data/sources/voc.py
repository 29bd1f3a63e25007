"""PASCAL VOC: devkit folders 2007 and 2012, their unions, and any folder of the same shape."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jdet.data.sources.annotations import (
    LabelBuilder,
    LabelledSource,
    Object,
    check_on_error,
    read_image_size,
    unknown_class,
)
from jdet.data.sources.voc_files import (
    class_names,
    find_folder,
    find_image,
    list_images,
    parse_splits,
    read_annotation,
    read_split,
)
from jdet.types import DataError


def voc_to_xyxy(boxes: np.ndarray) -> np.ndarray:
    """VOC's 1-based, inclusive xmin ymin xmax ymax → x1 y1 x2 y2 in continuous pixels, [..., 4].

    The first pixel of a row is 1 in a VOC file and covers 0 … 1 in continuous coordinates, so a box
    over the whole image, ``1 1 W H``, becomes ``0 0 W H``.
    """
    return np.asarray(boxes) - np.array([1, 1, 0, 0], np.asarray(boxes).dtype)


class VocSource(LabelledSource):
    """Images and boxes of one or several PASCAL VOC folders.

    A VOC folder holds ``Annotations/*.xml``, ``ImageSets/Main/<split>.txt`` and ``JPEGImages`` with
    .jpg, .jpeg or .png images, and may hold ``labels.txt``, one class per line. The image of
    split entry ``x`` is ``JPEGImages/x.*``; where there is none, what ``<filename>`` names.

    A box whose ``xmax <= xmin`` or ``ymax <= ymin`` as labelled is dropped and listed, although by
    inclusive arithmetic ``xmax == xmin`` is one pixel wide: in practice it is a slip of the mouse.
    Boxes partly outside their image are clipped and listed.

    Args:
        root: a folder that holds ``VOC2007``, ``VOC2012`` (directly or in ``VOCdevkit``), or a
            folder of VOC shape itself.
        splits: see ``parse_splits``.
        classes: class names in the order of the labels. None: ``labels.txt`` of the folder; else
            the 20 classes of VOC for a folder named ``VOC20xx``; else every name found in
            ``Annotations``, whichever split it belongs to, sorted.
        year: year of the items of ``splits`` that name none.
        keep_difficult: keep objects flagged difficult (with ``ignore`` set) or leave them out.
        on_error: ``"raise"``, or ``"skip"`` to leave out images that are missing or whose
            annotation cannot be read; they are listed in ``defects``.

    Raises:
        DataError: a folder, split, image or annotation is missing, an annotation cannot be read,
            or a class is not in the list.
    """

    def __init__(
        self,
        root: str | Path,
        splits: str | Sequence[str],
        classes: Sequence[str] | None = None,
        *,
        year: str | int | None = None,
        keep_difficult: bool = True,
        on_error: str = "raise",
    ):
        skip = check_on_error(on_error)
        parts = [find_folder(root, y or str(year or ""), s) for y, s in parse_splits(splits)]
        self.class_names = class_names([folder for folder, _ in parts], classes)
        self.name = "VOC " + "+".join(f"{folder.name}:{split}" for folder, split in parts)
        label_of = {name: label for label, name in enumerate(self.class_names)}
        builder = LabelBuilder()
        images: list[str] = []
        seen: set[str] = set()
        for folder, split in parts:
            files = list_images(folder)
            for id in read_split(folder, split):
                annotation_file = folder / "Annotations" / f"{id}.xml"
                try:
                    if id in seen:
                        raise DataError(f"image {id!r} is listed twice in splits {splits!r}")
                    annotation = read_annotation(annotation_file)
                    image = find_image(folder, split, id, annotation.filename, files)
                    size = annotation.size or read_image_size(image)
                except DataError as error:
                    if not skip:
                        raise
                    builder.skip(id, error)
                    continue
                objects = [o for o in annotation.objects if keep_difficult or not o.difficult]
                for name in {o.name for o in objects} - label_of.keys():
                    raise unknown_class(name, self.class_names, str(annotation_file))
                boxes = voc_to_xyxy(np.array([o.box for o in objects]).reshape(-1, 4)).tolist()
                rows = [
                    Object(box, _extent(o.box), o.box, label_of[o.name], o.difficult)
                    for o, box in zip(objects, boxes, strict=True)
                ]
                builder.add(id, size, rows)
                images.append(image)
                seen.add(id)
        self._table = builder.build(self.class_names)
        self._images = tuple(images)
        if not images:
            raise DataError(f"{self.name}: no image is left; {len(self.defects)} were skipped")

    def _image(self, index: int) -> str:
        return self._images[index]


def _extent(box: tuple[float, float, float, float]) -> tuple[float, float]:
    xmin, ymin, xmax, ymax = box
    return xmax - xmin, ymax - ymin
