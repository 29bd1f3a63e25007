"""COCO: one JSON file of boxes and masks for a folder of images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdet.data.find_images import expanded
from jdet.data.layouts.words import split_of, words
from jdet.data.readers.file_pattern import FilePattern
from jdet.data.readers.settings import USUAL, ImageSettings
from jdet.data.sources.annotations import (
    LabelBuilder,
    check_classes,
    check_on_error,
    read_image_size,
    unknown_class,
)
from jdet.data.sources.coco_file import (
    Record,
    by_id,
    called,
    category_names,
    check_fields,
    file_names,
    official_order,
    own_id,
    read_json,
    read_object,
    size_of,
)
from jdet.data.sources.image_lookup import ImageLookup
from jdet.data.sources.label_masks import LabelMasks
from jdet.data.sources.label_text import flag, record_id
from jdet.data.sources.labelled import LabelledSource
from jdet.types import DataError

IMAGES = ("images", "data")
"""Folders of images beside an annotation file; FiftyOne has ``data``."""

LABELS = {"annotations", "annotation", "labels", "label", "ann", "json"}
"""Words in the name of a folder that holds annotation files and has images beside it."""


def xywh_to_xyxy(boxes: np.ndarray) -> np.ndarray:
    """COCO's x y width height (corner and size, 0-based) → x1 y1 x2 y2, both [..., 4]."""
    boxes = np.asarray(boxes)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def xyxy_to_xywh(boxes: np.ndarray) -> np.ndarray:
    """The inverse of ``xywh_to_xyxy``."""
    boxes = np.asarray(boxes)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


class CocoSource(LabelledSource):
    """Images, boxes and masks of a COCO annotation file.

    Images keep the order of the file; those without objects are kept. COCO's category ids start
    at 1 and have holes: labels are 0 … K-1, and ``category_ids`` leads back.

    Files as other tools write them are read too: in any encoding (``label_text.decode``), with ids and
    flags as text, annotations without ids, polygons without boxes, names of images with backslashes or
    paths of another machine (``ImageLookup``), and a group beside the class of its name
    (``category_names``).

    Args:
        annotation_file: ``instances_*.json`` or any file of that form.
        image_root: folder that ``file_name`` is relative to. None: looked for near the annotation
            file, in ``images`` or ``data``, in a folder named like it (``instances_val2017`` →
            ``val2017``), and then in all folders below.
        classes: class names in the order of the labels. None: the categories of the file in the
            order of their ids. Every category that has objects must be in the list; names that the
            file does not know have no objects and get unused ids.
        keep_crowd: keep ``iscrowd`` regions (with ``ignore`` set) or leave them out.
        keep_masks: hand out each object's ``segmentation`` in ``Example.masks``, unchanged; None where it
            is none (``segmentation.to_rle``) or lies outside its box, which ``defects`` lists. Objects
            without a mask keep their boxes.
        on_error: ``"raise"``, or ``"skip"`` to leave out images that are missing; they are listed
            in ``defects``.
        image_settings: what the config says of images.

    Attributes:
        category_ids: label → COCO category id.
        image_ids: index → COCO image id.

    Raises:
        DataError: the file is missing, not JSON or not of COCO's form; two images or categories share an
            id; an annotation names an unknown image or category; a category with objects is not in
            ``classes``; images are not found.
    """

    def __init__(
        self,
        annotation_file: str | Path,
        image_root: str | Path | None = None,
        classes: Sequence[str] | None = None,
        *,
        keep_crowd: bool = True,
        keep_masks: bool = True,
        on_error: str = "raise",
        image_settings: ImageSettings = USUAL,
    ):
        self.image_settings = image_settings
        skip = check_on_error(on_error)
        path = expanded(annotation_file)
        self.name = f"COCO {path.name}"
        data = read_json(path)
        images = by_id(path, "images", data["images"], "file_name")
        categories = by_id(path, "categories", data["categories"], "name")
        annotations = data["annotations"]
        check_fields(path, "annotations", annotations, ("image_id", "category_id"))
        if not images:
            raise DataError(f"{path}: `images` is empty")
        used = {id for a in annotations if (id := record_id(a["category_id"])) is not None}
        names = category_names(path, categories, used)
        self.class_names, self.category_ids = _classes(categories, names, classes)
        label_of = {name: label for label, name in enumerate(self.class_names)}

        objects: dict[Any, list[tuple[Record, str, int]]] = {id: [] for id in images}
        for position, annotation in enumerate(annotations):
            name = called(annotation, position)
            owner = record_id(annotation["image_id"])
            if owner not in objects:
                raise DataError(
                    f"{path}: {name} belongs to image {annotation['image_id']!r}, which `images` does "
                    "not list"
                )
            key: Any = record_id(annotation["category_id"])
            category = names.get(key)
            if category is None:
                raise DataError(
                    f"{path}: {name} has category {annotation['category_id']!r}; `categories` lists "
                    f"{list(names)}"
                )
            if category not in label_of:
                raise unknown_class(category, self.class_names, f"{path}, {name}")
            objects[owner].append((annotation, name, label_of[category]))

        pattern = FilePattern(image_settings.files) if image_settings.files else None
        lookup = ImageLookup()
        root = _find_image_root(path, image_root, images.values(), lookup, pattern)
        split = split_of(f"{path.parent.name}/{path.name}")
        builder = LabelBuilder(self.name)
        taken = _named_exactly(images, root, lookup, pattern)
        files, image_ids, segmentations = [], [], []
        for id, record in images.items():
            try:
                found = []
                names = file_names(record, pattern)
                if len(names) > 1 and lookup.exact(root, str(record["file_name"])):
                    if not isinstance(record.get("files"), list) and pattern is None:
                        names = (str(record["file_name"]),)  # a name with " + " in it
                for written in names:
                    file = lookup.exact(root, written) or lookup.find(root, written)
                    file = file or lookup.anywhere(root, written, split)
                    if not file:
                        raise DataError(f"{Path(root, written)} is missing")
                    if file in taken and file != lookup.exact(root, written):
                        raise DataError(
                            f"{Path(root, written)} is missing; {file} is image {taken[file]} already"
                        )
                    found.append(file)
                size = size_of(record) or read_image_size(found[0])
                rows = [
                    (read_object(annotation, name, label), annotation.get("segmentation"))
                    for annotation, name, label in objects[id]
                    if keep_crowd or not flag(annotation.get("iscrowd"), f"iscrowd of {name}")
                ]
            except DataError as error:
                if not skip:
                    raise DataError(f"{path}: image {id}: {error}") from error
                builder.skip(str(id), error)
                continue
            builder.add(str(id), size, [row for row, _ in rows])
            segmentations.extend(segmentation for _, segmentation in rows)
            taken |= dict.fromkeys(found, id)
            files.append(found[0] if len(found) == 1 else tuple(found))
            image_ids.append(own_id(record))
        self._table = builder.build(self.class_names, official_order(image_ids))
        self._images = tuple(files)
        self.image_ids = tuple(image_ids)
        if keep_masks and any(segmentations):
            self._masks, self.has_masks = LabelMasks(self._table, segmentations), True

    def _image(self, index: int) -> str | tuple[str, ...]:
        return self._images[index]


def _named_exactly(
    images: Mapping[int | str, Record], root: str, lookup: ImageLookup, pattern: FilePattern | None
) -> dict[str, int | str]:
    """Files that are called just as some image says → id of the image; they are those of no other."""
    found: dict[str, int | str] = {}
    for id, record in images.items():
        with contextlib.suppress(DataError):  # told where the image is read
            for name in (*file_names(record, pattern), str(record["file_name"])):
                if file := lookup.exact(root, name):
                    found.setdefault(file, id)
    return found


def _classes(
    categories: dict[int | str, Record],
    names: dict[int | str, str],
    classes: Sequence[str] | None,
) -> tuple[tuple[str, ...], tuple[int | str, ...]]:
    """Class names and category ids by label."""
    own = {name: own_id(categories[id]) for id, name in names.items()}
    if classes is None:
        return tuple(own), tuple(own.values())
    classes = check_classes(classes, "CocoSource")
    first = max((id for id in categories if isinstance(id, int)), default=0) + 1
    unused = iter(range(first, first + len(classes)))
    return classes, tuple(own[name] if name in own else next(unused) for name in classes)


def _find_image_root(
    path: Path,
    image_root: str | Path | None,
    images: Iterable[Record],
    lookup: ImageLookup,
    pattern: FilePattern | None,
) -> str:
    """The folder of the images: the first place that holds one of the first images listed."""
    some = list(images)[:20]
    first = [file_names(image, pattern)[0] for image in some]
    if image_root is not None:
        image_root = expanded(image_root)
        if not image_root.is_dir():
            raise DataError(f"image_root {image_root} is missing; it should hold {first[0]}")
        return str(image_root)
    whole = [str(image["file_name"]) for image in some]  # a name may have " + " in it
    split = path.stem.rpartition("_")[2]
    beside, above = path.parent, path.parent.parent
    places = [
        place
        for base in dict.fromkeys((above, beside))
        for place in (
            base / "images" / split,
            base / split,
            *(base / name for name in IMAGES),
            base,
        )
    ]
    for found in (lookup.exact, lookup.find):
        for place in places:
            if any(found(str(place), name) for name in (*first, *whole)):
                return str(place)
    named = split_of(f"{beside.name}/{path.name}")
    for place in (beside, above) if words(beside.name) & LABELS else (beside,):
        with contextlib.suppress(DataError):  # several are as likely
            if any(lookup.anywhere(str(place), name, named) for name in (*first, *whole)):
                return str(place)
    raise DataError(
        f"{path}: its images ({first[0]} …) are in none of {', '.join(map(str, places))}. Name "
        "their folder: image_root=PATH of the experiments on your own images, elsewhere "
        "--config.data.train.image_root and --config.data.eval.image_root. COCO itself comes by "
        "`python data/get_coco.py --root data`."
    )
