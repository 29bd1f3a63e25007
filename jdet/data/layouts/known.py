"""The layouts of label files that are recognised beside VOC's and COCO's."""

from __future__ import annotations

from types import ModuleType

from jdet.data.layouts import cvat, dota, labelme, open_images, tables, unlabelled, via, yolo

LAYOUTS: dict[str, ModuleType] = {
    "yolo": yolo,
    "cvat": cvat,
    "labelme": labelme,
    "via": via,
    "open_images": open_images,
    "csv": tables,
    "dota": dota,
}
"""Name → module with ``find(listing)``, splits → a file that says so; ``TITLE``; and ``FORM``, what it
is."""

IMAGES = "images"
"""Name of the layout of images without labels."""

NAMES = ("voc", "coco", *LAYOUTS, IMAGES)
"""All that can be asked for by name, which are the names of their sources too."""

FORMS = {
    "voc": "Annotations/*.xml beside JPEGImages/, ImageSets/Main/*.txt for the splits",
    "coco": "JSON files with images, annotations and categories, and 'train' and 'val' as words "
    "in their names",
    **{name: module.FORM for name, module in LAYOUTS.items()},
    IMAGES: unlabelled.FORM,
}
"""Name → what a folder of that layout holds, in words."""
