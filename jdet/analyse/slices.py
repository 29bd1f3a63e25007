"""Parts of an evaluation set that are scored on their own, by a file or an attribute of images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdet.analyse.evaluated import EvaluatedRun
from jdet.data.find_images import expanded
from jdet.data.sources.coco_file import read_json
from jdet.types import ConfigError, DataError, nearest

MOST = 100
"""Slices of an attribute; one with more values says nothing."""


def read_slices(asked: str, run: EvaluatedRun) -> dict[str, list[Any]]:
    """The ids of the images of every slice.

    Args:
        asked: a JSON file ``{"night": [17, 23], …}`` of ids (as in ``images.json``) or names of images,
            or the name of a field that the images of the COCO annotation file have, of which each value
            makes a slice.
        run: whose images they are.

    Returns:
        By name, ids as in ``images.json``.

    Raises:
        ConfigError: there is neither such a file nor such an attribute.
        DataError: the file is not of this form, or names other images.
    """
    path = expanded(asked)
    if path.is_file():
        return _of_file(path, run)
    if path.suffix == ".json" or "/" in asked:
        raise ConfigError(f"--slices={asked}: there is no such file")
    return _of_attribute(asked, run)


def _of_file(path: Path, run: EvaluatedRun) -> dict[str, list[Any]]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(held, Mapping) or not all(isinstance(ids, list) for ids in held.values()):
        raise DataError(
            f'{path}: expected names with lists of image ids, such as {{"night": [17, 23]}}'
        )
    known = {str(image.id): image.id for image in run.images}
    known |= {image.name: image.id for image in run.images if image.name not in known}
    found = {}
    for name, ids in held.items():
        wrong = [id for id in ids if str(id) not in known]
        if wrong:
            raise DataError(
                f"{path}: slice {name!r} has {len(wrong)} ids that were not evaluated "
                f"({', '.join(map(repr, wrong[:3]))}); images.json of the run lists those that were"
            )
        found[name] = list(dict.fromkeys(known[str(id)] for id in ids))
    return found


def _of_attribute(name: str, run: EvaluatedRun) -> dict[str, list[Any]]:
    if run.annotation_file is None:
        raise ConfigError(
            f"--slices={name} is no file, and only sets in COCO's form have images with attributes; name "
            'a JSON file such as {"night": [17, 23]}'
        )
    records = read_json(expanded(run.annotation_file))["images"]
    fields = list(dict.fromkeys(key for record in records for key in record))
    if name not in fields:
        raise ConfigError(
            f"--slices={name} is neither a file nor a field of the images of {run.annotation_file}"
            f"{nearest(name, fields)}; they have {', '.join(fields)}"
        )
    value = {str(record["id"]): record.get(name) for record in records}
    found: dict[str, list[Any]] = {}
    for image in run.images:
        of_image = value.get(str(image.id))
        if of_image is not None:
            found.setdefault(f"{name}={of_image}", []).append(image.id)
    if len(found) > MOST:
        raise ConfigError(
            f"--slices={name}: it has {len(found)} values, more than {MOST}; group the images in a JSON "
            'file such as {"night": [17, 23]}'
        )
    return dict(sorted(found.items()))
