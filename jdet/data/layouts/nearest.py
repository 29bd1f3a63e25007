"""What a folder holds in which no labels were recognised, and what it lacks for the nearest layout."""

from __future__ import annotations

from pathlib import Path

from jdet.data.image_formats import SUFFIXES
from jdet.data.layouts import label_lines
from jdet.data.layouts.known import FORMS
from jdet.data.layouts.listing import Listing, holds
from jdet.data.layouts.table_file import head
from jdet.data.layouts.tables import WANTED
from jdet.data.sources.label_text import read_json, read_text
from jdet.data.sources.xml_file import root_tag
from jdet.types import DataError

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar")
OTHERS = (".tfrecord", ".record", ".mat", ".parquet", ".xlsx")


def what_is_there(listing: Listing) -> str:
    """The files of a folder by their extensions, the most frequent first."""
    counts = [(len(listing.images), "images")]
    for suffix, count in listing.counts().items():
        if suffix not in SUFFIXES:
            counts.append((count, suffix or "without extension"))
    some = [f"{count} {what}" for count, what in sorted(counts, reverse=True) if count]
    return ", ".join(some[:6]) or "no files"


def what_is_missing(listing: Listing) -> str:
    """What the folder lacks to be of the layout that it is nearest to; "" where nothing is near."""
    for suffix, advice in (
        (".xml", _of_xml),
        (".yaml", _of_yaml),
        (".yml", _of_yaml),
        (".json", _of_json),
        (".txt", _of_text),
        (".csv", _of_table),
        (".tsv", _of_table),
    ):
        for path in listing.of(suffix)[:3]:
            if said := advice(listing, path):
                return said
    for path in listing.of(*ARCHIVES):
        return f"{path} is an archive; unpack it there"
    for path in listing.of(*OTHERS):
        return f"{path} is not read; export the labels in COCO's form"
    if not listing.images:
        return "There are no images and no labels below it; name the folder that holds them"
    return ""


def _of_xml(listing: Listing, path: str) -> str:
    tag = root_tag(Path(listing.path(path)))
    return (
        f"{path} begins with <{tag}>; VOC's files begin with <annotation>, CVAT's with "
        "<annotations>: export the labels in one of these forms"
    )


def _of_yaml(listing: Listing, path: str) -> str:
    text = read_text(Path(listing.path(path)))
    missing = [key for key in ("train", "names") if f"{key}:" not in text]
    if len(missing) > 1:
        return ""
    lacks = f"it lacks {missing[0]}; " if missing else ""
    return f"{path} is near to YOLO's data.yaml: {lacks}YOLO has {FORMS['yolo']}"


def _of_json(listing: Listing, path: str) -> str:
    try:
        data = read_json(Path(listing.path(path)))
    except (DataError, OSError) as error:
        return str(error)
    wanted = ("images", "annotations", "categories")
    if isinstance(data, dict) and data.keys() & set(wanted):
        lacks = [key for key in wanted if not data.get(key)]
        what = f"has no {', '.join(lacks)}" if lacks else "holds no boxes"
        return f"{path} {what} in COCO's form: {FORMS['coco']}"
    if holds(b'"shapes"')(Path(listing.path(path))):
        return f"{path} has shapes, and no imagePath, as LabelMe has it; save it again with LabelMe"
    keys = ", ".join(sorted(map(str, data))[:6]) if isinstance(data, dict) else ""
    return (
        f"{path} holds no boxes in COCO's form, nor in LabelMe's or VIA's: it is "
        f"{f'a record of {keys}' if keys else 'a list'}; COCO has images, annotations and categories"
    )


def _of_text(listing: Listing, path: str) -> str:
    if label_lines.is_list(path):
        return ""
    lines = label_lines.lines_of(Path(listing.path(path)))
    if not lines or not listing.image_index.has_stem(path):
        return ""
    return (
        f"{path} begins with {lines[0][1][:60]!r}; YOLO's lines are `0 x y width height`, with "
        "the number of the class, DOTA's `x1 y1 x2 y2 x3 y3 x4 y4 class`"
    )


def _of_table(listing: Listing, path: str) -> str:
    lines = head(Path(listing.path(path)))
    if not lines:
        return f"{path} is empty"
    columns = ", ".join(lines[0][:8])
    return (
        f"{path} has the columns {columns}; a table of boxes has {', '.join(WANTED)}: call the "
        "columns so"
    )
