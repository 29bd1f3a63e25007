"""``data.yaml`` of YOLO: where the images of each split are and what the classes are called."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from jdet.data.image_formats import SUFFIXES
from jdet.data.layouts.listing import Listing
from jdet.data.layouts.words import split_of
from jdet.data.sources.annotations import check_classes
from jdet.data.sources.label_text import class_name, read_text
from jdet.types import DataError

KEYS = ("train", "val", "test")
"""Keys of a ``data.yaml`` that name images."""

_SYNONYMS = {"valid": "val", "validation": "val"}


class DataYaml(NamedTuple):
    """What a ``data.yaml`` says.

    Attributes:
        path: of the file.
        names: class id → name; empty where it does not say.
        places: split → what it names, as written: folders of images, lists of them.
        base: its key ``path``; "" where there is none.
        keypoints: labels have keypoints behind the box.
    """

    path: Path
    names: dict[int, str]
    places: dict[str, tuple[str, ...]]
    base: str
    keypoints: bool = False


class _Loader(yaml.SafeLoader):
    """Reads every plain scalar as text: classes may be called ``no``, ``2024-05-01`` or ``1e3``."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile(r"^(?:<<)$"))]}


def find_yaml(listing: Listing) -> Path | None:
    """The ``data.yaml`` of a folder, whatever it is called; None where there is none.

    Raises:
        DataError: several files highest up in the folder may be it, or one cannot be read.
    """
    found: dict[int, list[str]] = {}
    for name in listing.of(".yaml", ".yml"):
        text = read_text(Path(listing.path(name)))
        if re.search(r"^\s*['\"]?(names|nc)['\"]?\s*:", text, re.M) and re.search(
            r"^\s*['\"]?(train|val|valid|test)['\"]?\s*:", text, re.M
        ):
            found.setdefault(name.count("/"), []).append(name)
    if not found:
        return None
    highest = found[min(found)]
    usual = [name for name in highest if posixpath.splitext(posixpath.basename(name))[0] == "data"]
    folders = sorted({posixpath.dirname(name) for name in highest})
    if len(folders) > 1:
        raise DataError(
            f"{listing.root} holds several data sets of YOLO's form: {', '.join(folders)}; name one of "
            f"them, such as root={listing.path(folders[0])}"
        )
    if len(highest) > 1 and len(usual) != 1:
        raise DataError(
            f"{listing.root} has several files of YOLO's form: {', '.join(highest)}; keep one of "
            "them there, "
            "or call it data.yaml"
        )
    return Path(listing.path((usual or highest)[0]))


def read_yaml(path: Path) -> DataYaml:
    """Reads a ``data.yaml``; anchors, aliases and merged keys are resolved, and nothing is executed.

    Raises:
        DataError: it is not YAML, or its keys are not what YOLO's are.
    """
    try:
        text = read_text(path)
        if _size(yaml.compose(text, _Loader), {}) > _MOST_VALUES:
            raise DataError(f"{path}: its aliases stand for more than {_MOST_VALUES:,} values")
        data = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error)
        raise DataError(f"{path}{place}: not YAML: {what}") from error
    except RecursionError as error:
        raise DataError(f"{path}: its aliases never end") from error
    if not isinstance(data, dict):
        raise DataError(
            f"{path} is a {type(data).__name__}; a data.yaml has keys train, val and names"
        )
    data = {_SYNONYMS.get(str(key), key): value for key, value in data.items()}
    names = _names(path, data.get("names"), data.get("nc"))
    places = {key: tuple(_places(path, key, data[key])) for key in KEYS if data.get(key)}
    base = data.get("path") or ""
    if not isinstance(base, str):
        raise DataError(f"{path}: path is {base!r}; expected the folder of the data set")
    return DataYaml(path, names, places, base, "kpt_shape" in data)


_MOST_VALUES = 1_000_000
"""Of a file, aliases written out: some lines of them can stand for more than memory holds."""


def _size(node: Any, known: dict[int, int]) -> int:
    """Values of a node, aliases written out.

    Raises:
        RecursionError: one is a part of itself.
    """
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = -1
        inner = node.value
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_size(part, known) for part in inner)
    if known[id(node)] < 0:
        raise RecursionError
    return known[id(node)]


def _names(path: Path, names: Any, count: Any) -> dict[int, str]:
    if isinstance(names, str) and names and os.path.isfile(path.parent / names):
        names = [line for line in read_text(path.parent / names).split("\n") if line.strip()]
    if not names:
        return {}
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        raise DataError(f"{path}: names is {names!r}; expected a list, such as [cat, dog]")
    found: dict[int, str] = {}
    for key, name in names.items():
        if not re.fullmatch(r"\d{1,9}", str(key)):
            raise DataError(f"{path}: names has the key {key!r}; expected 0, 1, …")
        found[int(key)] = class_name(name, f"{path}: names")
    found = dict(sorted(found.items()))
    check_classes(list(found.values()), f"{path}: names")
    if count and str(count) != str(len(found)):
        raise DataError(
            f"{path}: nc is {count}, and names has {len(found)}: {', '.join(found.values())}; "
            "correct one of them"
        )
    return found


def _places(path: Path, key: str, value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, str) or not one.strip():
            raise DataError(
                f"{path}: {key} is {value!r}; expected a folder of images, such as images/{key}, or several"
            )
        yield one.strip()


def locate(data: DataYaml, split: str) -> list[Path]:
    """The folders and lists that a split names, wherever the data set was when the file was written.

    A path is taken below ``path`` and below the folder of the file; where it leads nowhere, folders at its
    beginning are left out until it does: ``../train/images`` and ``/content/set/train/images`` are
    ``train/images``, but never ``images``, which speaks of no split.

    Raises:
        DataError: one is nowhere.
    """
    here = data.path.parent
    bases = [here / data.base, here] if data.base else [here]
    found = []
    for place in data.places[split]:
        parts = [
            part for part in place.replace("\\", "/").split("/") if part not in ("", ".", "..")
        ]
        tails = ["/".join(parts[first:]) for first in range(len(parts))]
        named = split_of(place)
        tails = [tail for tail in tails if not named or split_of(tail)]  # else any split's images
        candidates = [base / place for base in bases]
        candidates += [base / tail for tail in tails for base in bases]
        there = next((path for path in candidates if os.path.exists(path)), None)
        if there is None:
            folders = sorted({path.parent.as_posix() for path in here.glob("*/*/")} or ["nothing"])
            raise DataError(
                f"{data.path}: {split} is {place!r}, and neither {candidates[0]} nor any end of "
                f"it below {here} is "
                f"there (there are {', '.join(os.path.relpath(f, here) for f in folders[:6])}); "
                "correct it to the "
                f"folder of the images, such as {split}: images/{split}, or leave {split} out"
            )
        found.append(there)
    return found


def listed(path: Path) -> list[str]:
    """The images that a text file lists, one on a line, as written; empty where it is no such list."""
    lines = [line.strip() for line in read_text(path).split("\n")]
    lines = [line for line in lines if line and not line.startswith("#")]
    images = [line for line in lines if posixpath.splitext(line)[1].lower() in SUFFIXES]
    return images if images and len(images) == len(lines) else []
