"""PASCAL VOC: devkit folders 2007 and 2012, their unions, and any folder of the same shape."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jdet.data.readers.file_pattern import FilePattern
from jdet.data.readers.settings import USUAL, ImageSettings
from jdet.data.segmentation import Rle
from jdet.data.sources.annotations import (
    Defect,
    LabelBuilder,
    Object,
    check_on_error,
    read_image_size,
    unknown_class,
)
from jdet.data.sources.label_masks import LabelMasks
from jdet.data.sources.labelled import LabelledSource
from jdet.data.sources.voc_annotation import read_annotation
from jdet.data.sources.voc_files import (
    annotation_files,
    class_names,
    entry_id,
    find_folder,
    find_image,
    find_parts,
    flat_split,
    image_files,
    is_flat,
    parse_splits,
    read_split,
)
from jdet.data.sources.voc_masks import mask_file, read_instances
from jdet.types import DataError, require

COORDINATES = {"from_1": (-1, -1, 0, 0), "from_0": (0, 0, 1, 1), "edges": (0, 0, 0, 0)}
"""How files may count, and what leads from there to continuous coordinates."""


def voc_to_xyxy(boxes: np.ndarray, coordinates: str = "from_1") -> np.ndarray:
    """A VOC file's xmin ymin xmax ymax → x1 y1 x2 y2 in continuous pixels, [..., 4].

    PASCAL counts pixels from 1, and the last belongs to the box: the first pixel of a row covers 0 … 1 in
    continuous coordinates, so a box over the whole image, ``1 1 W H``, becomes ``0 0 W H``.

    Args:
        boxes: as written.
        coordinates: "from_1"; "from_0" where the first pixel is 0 and the last belongs to the box
            (``0 0 W-1 H-1`` is the whole image); "edges" where they are continuous already (``0 0 W H``).
    """
    return np.asarray(boxes) + np.array(COORDINATES[coordinates], np.asarray(boxes).dtype)


class VocSource(LabelledSource):
    """Images and boxes of one or several PASCAL VOC folders.

    A VOC folder holds ``Annotations/*.xml``, ``ImageSets/Main/<split>.txt`` and ``JPEGImages`` with
    images in any format that is read, and may hold ``labels.txt``, one class per line. The image of
    split entry ``x`` is ``JPEGImages/x.*``; where there is none, what ``<filename>`` names. Entries may
    have sub-folders, extensions and leading paths, and files any encoding (``label_text.decode``).

    Where the XML files lie beside their images, as LabelImg and Roboflow leave them, the sub-folders are
    the splits, and ``.`` is all of them.

    A box whose ``xmax <= xmin`` or ``ymax <= ymin`` as labelled is dropped and listed, although by
    inclusive arithmetic ``xmax == xmin`` is one pixel wide: in practice it is a slip of the mouse.
    Boxes partly outside their image are clipped and listed.

    Args:
        root: a folder that holds ``VOC2007``, ``VOC2012`` (directly or in ``VOCdevkit``), a folder of
            VOC shape itself, or one that holds a single such folder.
        splits: see ``parse_splits``.
        classes: class names in the order of the labels. None: ``labels.txt`` of the folder; else
            the 20 classes of VOC for a folder named ``VOC20xx`` whose annotations know no others; else
            every name found in ``Annotations``, whichever split it belongs to, sorted.
        year: year of the items of ``splits`` that name none.
        keep_difficult: keep objects flagged difficult (with ``ignore`` set) or leave them out.
        keep_masks: read the masks of ``SegmentationObject`` (``voc_masks``), once, into ``Example.masks``.
            Objects that have none there keep their boxes, and ``defects`` lists them, with one entry for an
            image without a file.
        coordinates: how the files count pixels, as in ``voc_to_xyxy``: PASCAL from 1, LabelImg, CVAT and
            Roboflow by edges.
        on_error: ``"raise"``, or ``"skip"`` to leave out images that are missing or whose
            annotation cannot be read; they are listed in ``defects``.
        image_settings: what the config says of images; of ``files`` the stem is the split entry.

    Raises:
        DataError: a folder, split, image or annotation is missing, an annotation cannot be read,
            or a class is not in the list.
        ConfigError: ``coordinates`` or ``on_error`` is none of these.
    """

    def __init__(
        self,
        root: str | Path,
        splits: str | Sequence[str],
        classes: Sequence[str] | None = None,
        *,
        year: str | int | None = None,
        keep_difficult: bool = True,
        keep_masks: bool = False,
        coordinates: str = "from_1",
        on_error: str = "raise",
        image_settings: ImageSettings = USUAL,
    ):
        self.image_settings = image_settings
        pattern = FilePattern(image_settings.files) if image_settings.files else None
        skip = check_on_error(on_error)
        known = ", ".join(COORDINATES)
        require(coordinates in COORDINATES, "coordinates", coordinates, f"one of {known}")
        parts = [find_folder(root, y or str(year or ""), s) for y, s in parse_splits(splits)]
        annotations = {folder: annotation_files(folder) for folder, _ in parts}
        self.class_names = class_names(annotations, classes)
        self.name = "VOC " + "+".join(f"{folder.name}:{split}" for folder, split in parts)
        label_of = {name: label for label, name in enumerate(self.class_names)}
        builder = LabelBuilder(self.name)
        images: list[str | tuple[str, ...]] = []
        wanted: list[tuple[Path, list[int], int]] = []
        seen: set[str] = set()
        self._from_zero = 0
        for folder, split in parts:
            files = image_files(folder)
            labelled = annotations[folder]
            flat = is_flat(folder)
            for entry in flat_split(folder, split, labelled) if flat else read_split(folder, split):
                id = entry_id(entry, labelled, files)
                annotation_file = labelled.folder / (labelled[id] or [f"{id}.xml"])[0]
                try:
                    if id in seen:
                        raise DataError(f"image {id!r} is listed twice in splits {splits!r}")
                    annotation = read_annotation(annotation_file)
                    if pattern is None:
                        image = find_image(folder, split, id, annotation.filename, files)
                    else:
                        image = find_parts(files.folder, pattern.names(id))
                    size = annotation.size or read_image_size(image)
                except DataError as error:
                    if not skip:
                        raise
                    builder.skip(id, error)
                    continue
                places = [
                    place
                    for place, o in enumerate(annotation.objects)
                    if keep_difficult or not o.difficult
                ]
                objects = [annotation.objects[place] for place in places]
                for name in {o.name for o in objects} - label_of.keys():
                    raise unknown_class(name, self.class_names, str(annotation_file))
                written = np.array([o.box for o in objects]).reshape(-1, 4)
                boxes = voc_to_xyxy(written, coordinates).tolist()
                self._from_zero += int((written[:, :2] == 0).any(axis=1).sum())
                rows = [
                    Object(box, _extent(o.box), o.box, label_of[o.name], o.difficult)
                    for o, box in zip(objects, boxes, strict=True)
                ]
                builder.add(id, size, rows)
                images.append(image)
                wanted.append((mask_file(folder, id), places, len(annotation.objects)))
                seen.add(id)
        self._table = builder.build(self.class_names)
        self._images = tuple(images)
        if keep_masks:
            self._read_masks(wanted)
        self._from_zero *= coordinates == "from_1"

    def _image(self, index: int) -> str | tuple[str, ...]:
        return self._images[index]

    def _read_masks(self, wanted: Sequence[tuple[Path, list[int], int]]) -> None:
        """Reads the masks of all images: of each its file, the places of its objects, and of how many."""
        masks: list[Rle | None] = []
        told, notes = set(), []
        for index, (path, places, count) in enumerate(wanted):
            found: list[Rle | None] = [None] * len(places)
            try:
                if not path.is_file():
                    raise DataError(f"{path} is missing")
                found, beyond = read_instances(path, places, count)
                if beyond:
                    notes.append(
                        (index, f"{path} numbers objects {beyond}, which are not annotated")
                    )
            except DataError as error:
                told.add(index)
                if places:
                    notes.append((index, str(error)))
            masks += found
        if any(masks):
            defects = [Defect(self._table.ids[index], "no mask", text) for index, text in notes]
            self._table.defects.extend(defects)
            self._masks, self.has_masks = LabelMasks(self._table, masks, told), True

    def describe(self) -> str:
        """As of every source, with a hint where the files do not seem to count from 1."""
        if not self._from_zero:
            return super().describe()
        return (
            f"{super().describe()}; {self._from_zero} boxes begin at 0, while VOC counts pixels from 1: if "
            "these files do not, set --config.data.train.coordinates and --config.data.eval.coordinates to "
            "edges, or to from_0"
        )


def _extent(box: tuple[float, float, float, float]) -> tuple[float, float]:
    xmin, ymin, xmax, ymax = box
    return xmax - xmin, ymax - ymin
