"""What the XML file of a PASCAL VOC annotation says, as the devkit and other tools write it."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

from jdet.data.sources.label_text import class_name, flag
from jdet.data.sources.xml_file import read_xml
from jdet.types import DataError


class VocObject(NamedTuple):
    """One ``<object>``: class name, xmin ymin xmax ymax as written, flag."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


class VocAnnotation(NamedTuple):
    """One annotation file; ``size`` is height and width, None where the file does not say."""

    filename: str
    size: tuple[int, int] | None
    objects: list[VocObject]


def read_annotation(path: str | Path) -> VocAnnotation:
    """Reads one VOC annotation file.

    What its declaration says of version and encoding counts for little (``label_text.decode``), for many
    tools write another. An object without ``<bndbox>`` has the box around its ``<polygon>``.

    Raises:
        DataError: the file is missing, is not XML (line and column are named) or no annotation, declares a
            document type or entities, or lacks a class name or coordinates.
    """
    root = read_xml(path)
    try:
        nodes = list(root.iterfind("object")) or list(root.iter("object"))
        if not nodes and root.tag != "annotation":
            raise DataError(f"is no VOC annotation: it begins with <{root.tag}>, not <annotation>")
        size = root.find("size")
        height, width = (0, 0) if size is None else (_number(size, k) for k in ("height", "width"))
        return VocAnnotation(
            filename=(root.findtext("filename") or "").strip(),
            size=(int(height), int(width)) if height > 0 and width > 0 else None,
            objects=[_read_object(node) for node in nodes],
        )
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _read_object(node: ElementTree.Element) -> VocObject:
    if not (node.findtext("name") or "").strip():
        raise DataError("an <object> has no <name>")
    name = class_name(node.findtext("name"), "<object>")
    difficult = flag(node.findtext("difficult"), f"<difficult> of object {name!r}")
    box, polygon = node.find("bndbox"), node.find("polygon")
    if box is not None:
        xmin, ymin, xmax, ymax = (_number(box, key) for key in ("xmin", "ymin", "xmax", "ymax"))
    elif polygon is not None:
        xmin, ymin, xmax, ymax = _around(polygon, name)
    else:
        raise DataError(f"object {name!r} has no <bndbox>")
    return VocObject(name, (xmin, ymin, xmax, ymax), difficult)


def _around(polygon: ElementTree.Element, name: str) -> tuple[float, float, float, float]:
    """The box around ``<x1> <y1> <x2> …`` or ``<pt><x> <y></pt> …``."""
    along: dict[str, list[float]] = {"x": [], "y": []}
    for node in polygon.iter():
        if re.fullmatch(r"[xy]\d*", node.tag):
            along[node.tag[0]].append(_finite(node.text or "", f"<polygon> has {node.tag}"))
    x, y = along["x"], along["y"]
    if not x or len(x) != len(y):
        raise DataError(f"object {name!r} has no <bndbox>, and a <polygon> without points")
    return min(x), min(y), max(x), max(y)


def _number(node: ElementTree.Element, key: str) -> float:
    return _finite(node.findtext(key) or "", f"<{node.tag}> has {key}")


def _finite(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{what} {text!r}, which is not a number")
    return value
