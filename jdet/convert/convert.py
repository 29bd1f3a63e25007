"""Writes the labels of a folder, of whatever layout, as COCO's annotation files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdet import build
from jdet.atomic_files import write_json
from jdet.data.discover import all_splits
from jdet.data.find_images import expanded
from jdet.data.layouts.words import ALL
from jdet.types import ConfigError, Source


class Written(NamedTuple):
    """One annotation file.

    Attributes:
        path: of the file.
        images: in it.
        objects: in it, those that training would drop included.
        masks: objects with one.
        classes: in it.
        skipped: images left out.
        told: ``describe`` of the source.
    """

    path: Path
    images: int
    objects: int
    masks: int
    classes: int
    skipped: int
    told: str


def convert(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    layout: str = "",
    on_error: str = "raise",
    **fields: Any,
) -> list[Written]:
    """Writes every split of a folder as a COCO annotation file; all of them or none.

    Objects are written as they are labelled, difficult ones and groups as ``iscrowd``, polygons and
    masks as they are. Images stay where they are: their names are relative to the folder where the file
    lies in it or in a folder of it, such as ``annotations``, and else to the file's own folder.

    Args:
        folder: what to convert.
        out: a file that ends in ``.json``, for a folder of one split, or a folder, for
        ``instances_train.json`` …. Nothing that exists is overwritten.
        layout: as in ``discover``.
        on_error: as in the sources.
        **fields: further fields of the source, such as ``classes``, ``image_root`` or ``coordinates``.

    Raises:
        DataError: the folder is of no layout, or its labels cannot be read.
        ConfigError: ``out`` exists, or is a file where there are several splits; or a field is none.
    """
    root, target = expanded(folder), expanded(out)
    shape, sides = all_splits(root, layout)
    paths = _targets(target, list(sides))
    contents, written = [], []
    for (split, side), path in zip(sides.items(), paths, strict=True):
        group = build.folder_group(shape, str(root), side, keep_masks=True, **fields)
        source = build.source(group.to_dict(), f"the split {split or ALL}", on_error)
        contents.append(as_coco(source, _base(path, root)))
        written.append(_counted(path, contents[-1], source))
    for path, content in zip(paths, contents, strict=True):  # nothing where any split is refused
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
    return written


def as_coco(source: Source, base: Path) -> dict[str, Any]:
    """The images and objects of a source as a COCO annotation file has them.

    Args:
        source: whose images are files.
        base: folder to which their names are relative.
    """
    own: Any = source
    count = len(source)
    ids = tuple(getattr(source, "image_ids", ())) or tuple(range(1, count + 1))
    categories = tuple(getattr(source, "category_ids", ())) or tuple(
        range(1, len(source.class_names) + 1)
    )
    images, annotations = [], []
    for index in range(count):
        example = source[index]
        files = example.image if isinstance(example.image, tuple) else (str(example.image),)
        names = [os.path.relpath(file, base).replace(os.sep, "/") for file in files]
        height, width = own.image_size(index)
        image = {"id": ids[index], "file_name": names[0], "width": width, "height": height}
        images.append(image | ({"files": names} if len(names) > 1 else {}))
        objects = example.official
        assert objects is not None  # all sources of folders have label files
        for row, label in enumerate(objects.labels.tolist()):
            mask = objects.masks[row] if objects.masks else None
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": ids[index],
                    "category_id": categories[label],
                    "bbox": objects.xywh[row].tolist(),
                    "area": float(objects.areas[row]),
                    "iscrowd": int(objects.ignore[row]),
                    "segmentation": mask if mask is not None else [],
                }
            )
    return {
        "info": {"description": getattr(source, "name", "")},
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": id, "name": name, "supercategory": ""}
            for id, name in zip(categories, source.class_names, strict=True)
        ],
    }


def _targets(out: Path, splits: Sequence[str]) -> list[Path]:
    """Where the file of each split goes.

    Raises:
        ConfigError: one exists, or several splits are to go into one file.
    """
    if out.suffix.lower() == ".json":
        if len(splits) > 1:
            raise ConfigError(
                f"--out={out} is one file, and there are the splits "
                f"{', '.join(map(_named, splits))}; name a "
                f"folder, such as --out={out.with_suffix('')}"
            )
        paths = [out]
    else:
        if out.exists() and not out.is_dir():
            raise ConfigError(f"--out={out} is a file; name a folder, or a file that ends in .json")
        paths = [out / f"instances_{_named(split)}.json" for split in splits]
    for path in paths:
        if path.exists():
            raise ConfigError(
                f"{path} exists, and is not overwritten; name another --out or delete it"
            )
    return paths


def _named(split: str) -> str:
    """A split as a part of a file's name; ``default``, as CVAT has it, where nothing says which."""
    name = re.sub(r"\W+", "_", split.removesuffix(".json")).strip("_")
    return name or "default"


def _base(path: Path, root: Path) -> Path:
    """The folder to which the names of images are relative, from which ``CocoSource`` finds them."""
    return (
        root
        if root.resolve() in (path.parent.resolve(), path.parent.resolve().parent)
        else path.parent
    )


def _counted(path: Path, content: Mapping[str, Any], source: Any) -> Written:
    skipped = sum(defect.what == "skipped" for defect in source.defects)
    return Written(
        path=path,
        images=len(content["images"]),
        objects=len(content["annotations"]),
        masks=int(np.sum([bool(one["segmentation"]) for one in content["annotations"]])),
        classes=len(content["categories"]),
        skipped=skipped,
        told=source.describe(),
    )
