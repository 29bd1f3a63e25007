"""Manifest of a checkpoint folder: its arrays and files with checksums, and their verification.

``about.json`` is written once everything else is on disk. It carries the evaluation metrics, dtype
and shape of every array, and size and CRC-32 of every file: without them a folder with a flipped
bit would be read without complaint.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdet.atomic_files import write_json
from jdet.types import ConfigError

ABOUT = "about.json"


class Damaged(Exception):
    """A checkpoint is incomplete or not what was written."""


def describe(parts: Mapping[str, Any], metrics: Mapping[str, float]) -> dict[str, Any]:
    """The part of the manifest that is known before the arrays are written.

    Args:
        parts: trees of arrays.
        metrics: of an evaluation; those that are not finite are left out.
    """
    return {
        "metrics": _finite(metrics),
        "shapes": {name: _shapes(tree) for name, tree in parts.items()},
    }


def seal(path: Path, about: Mapping[str, Any]) -> None:
    """Completes a folder: adds its files to ``about`` and writes that into it.

    Raises:
        Damaged: an array of ``about`` is not there to be read.
        OSError: there is no room.
    """
    _find_arrays(path, about)
    files = {
        str(file.relative_to(path)): [file.stat().st_size, _checksum(file)]
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
    write_json(path / ABOUT, {**about, "files": files})


def add_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    """Replaces the metrics of a sealed folder without changing its arrays.

    Raises:
        Damaged: what was written beside the arrays cannot be read.
        OSError: there is no room.
    """
    write_json(path / ABOUT, {**read(path), "metrics": _finite(metrics)})


def read(path: Path) -> dict[str, Any]:
    """Reads the manifest.

    Raises:
        Damaged: nothing, or nothing legible.
    """
    try:
        about = json.loads((path / ABOUT).read_text())
        about = {key: about[key] for key in ("metrics", "shapes", "files")}
        _check_kinds(about)
        return about
    except FileNotFoundError as error:
        raise Damaged(f"{ABOUT} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"{ABOUT} cannot be read") from error


def _check_kinds(about: Mapping[str, Any]) -> None:
    """Raises TypeError or ValueError where a manifest is not of the form that ``seal`` writes."""
    if not all(isinstance(value, dict) for value in (*about.values(), *about["shapes"].values())):
        raise TypeError
    for size, crc in about["files"].values():
        if type(size) is not int or type(crc) is not int:
            raise TypeError
    if not all(isinstance(value, int | float) for value in about["metrics"].values()):
        raise TypeError


def verify(path: Path) -> dict[str, Any]:
    """As ``read``, after every file was compared with its checksum.

    Raises:
        Damaged: a file is missing or not as it was, or an array is not there to be read.
    """
    about = read(path)
    for name, (size, crc) in about["files"].items():
        file = path / name
        if not os.path.isfile(file):  # also of a name that no file can have
            raise Damaged(f"{name} is missing")
        if file.stat().st_size != size or _checksum(file) != crc:
            raise Damaged(f"{name} is not as it was written")
    _find_arrays(path, about)
    return about


def verify_fit(path: Path, *expected: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """What was written beside a checkpoint, once it is known to be whole and to fit.

    Args:
        path: of the checkpoint.
        *expected: shapes of each part, of which one must fit; None: whatever the part has.

    Returns:
        What was written, and the number of the first of ``expected`` that fits.

    Raises:
        ConfigError: none does; says where the first differs.
        Damaged: the folder is not what was written.
    """
    about = verify(path)
    lines: list[list[str]] = []
    for which, parts in enumerate(expected):
        trees = {name: tree for name, tree in parts.items() if tree is not None}
        lines.append(sum((differences(about, *part) for part in trees.items()), []))
        if not lines[-1]:
            return about, which
    listed = lines[0]
    more = f"\n  … and {len(listed) - 10} more" if len(listed) > 10 else ""
    raise ConfigError(
        f"checkpoint {path} belongs to another model or optimiser:\n  "
        + "\n  ".join(listed[:10])
        + more
        + "\nUse the config it was trained with, or another workdir."
    )


def _find_arrays(path: Path, about: Mapping[str, Any]) -> None:
    """Opens the store of every part and looks for its arrays.

    Files that are all as they were written may still hold nothing: orbax gathers the arrays of all
    processes by a pattern, and one that finds none makes an empty store.

    Raises:
        Damaged: the store of a part cannot be opened, or has not all of its arrays.
    """
    import tensorstore  # late: only who saves or reads needs it

    for part, shapes in about["shapes"].items():
        files = {"driver": "file", "path": f"{path / part}/"}
        try:
            keys = tensorstore.KvStore.open({"driver": "ocdbt", "base": files}).result().list()
            held = sum(key.endswith(b"/zarr.json") for key in keys.result())
        except (ValueError, OSError) as error:
            first_line = next(iter(str(error).splitlines()), "")
            raise Damaged(f"{part} cannot be opened: {first_line}") from error
        if held < len(shapes):
            raise Damaged(f"of the {len(shapes)} arrays of {part}, {held} can be read")


def differences(about: Mapping[str, Any], name: str, tree: Any) -> list[str]:
    """One line for every array of a part that is missing, added or of another shape in ``tree``."""
    stored, wanted = about["shapes"][name], _shapes(tree)
    lines = []
    for path in sorted({*stored, *wanted}):
        a, b = stored.get(path, "absent"), wanted.get(path, "absent")
        if a != b:
            lines.append(f"{path}: {a} in the checkpoint, {b} in the model")
    return lines


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _shapes(tree: Any) -> dict[str, str]:
    """Path to dtype and shape of every array, such as ``float32[3,3,64,64]``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_text(path): shape_text(x) for path, x in leaves}


def path_text(path: Any) -> str:
    """A path in a tree as its names joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def shape_text(x: Any) -> str:
    """Dtype and shape of an array, such as ``float32[3,3,64,64]``."""
    return f"{np.dtype(x.dtype).name}[{','.join(map(str, x.shape))}]"


def _checksum(file: Path) -> int:
    """CRC-32 of a file."""
    value = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            value = zlib.crc32(block, value)
    return value
