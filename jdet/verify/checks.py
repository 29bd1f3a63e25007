"""What a certificate says held against what is there now: itself, code, config, data, checkpoints."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jdet import config as config_lib
from jdet.certify import certificate as certificate_lib
from jdet.certify import leaves as leaves_lib
from jdet.certify.leaves import ABSENT, Leaf
from jdet.train import provenance
from jdet.train.checkpoints import select
from jdet.train.folders import CONFIG, read_json
from jdet.types import ConfigError, DataError

_SHOWN = 20
"""Differences of a kind that are listed."""


class Check(NamedTuple):
    """One thing that was looked at.

    Attributes:
        name: of what was looked at.
        holds: it is as certified.
        said: in words: what was found, or how it differs, a line for each difference.
    """

    name: str
    holds: bool
    said: tuple[str, ...]


def _check(name: str, differences: Sequence[str], good: str) -> Check:
    more = len(differences) - _SHOWN
    listed = (*differences[:_SHOWN], *([f"… and {more} more"] if more > 0 else ()))
    return Check(name, not differences, listed or (good,))


def of_itself(certificate: Mapping[str, Any]) -> Check:
    """Whether the certificate is as it was written."""
    found = certificate_lib.digest(certificate)
    wrong = [
        f"its content has the id {found}, not the {certificate['id']} it bears: it was changed"
    ]
    return _check("certificate", wrong if found != certificate["id"] else [], f"id {found}")


def of_code(certificate: Mapping[str, Any], config: ConfigDict, package: Path) -> list[Check]:
    """Code of jdet and of classes of one's own."""
    checks = [
        _check(
            "code",
            _files(certificate["code"], provenance.code_files(package)),
            f"{len(certificate['code'])} files of jdet",
        )
    ]
    if certificate["modules"]:
        try:
            own = certificate_lib.own_modules(config)
            wrong = _files(certificate["modules"], own)
        except (ConfigError, OSError) as error:
            wrong = [str(error)]
        checks.append(_check("own classes", wrong, ", ".join(certificate["modules"])))
    return checks


def of_config(certificate: Mapping[str, Any], run: Path) -> Check:
    """The config in the folder of the run."""
    before = config_lib.flatten(certificate["config"], "config.")
    now = config_lib.flatten(read_json(run / CONFIG, "put back a copy"), "config.")
    wrong = [
        f"{key}: {before.get(key, 'absent')!r} → {now.get(key, 'absent')!r}"
        for key in sorted({*before, *now})
        if key not in before or key not in now or json.dumps(before[key]) != json.dumps(now[key])
    ]
    return _check("config", wrong, f"{len(before)} keys")


def of_checkpoints(certificate: Mapping[str, Any], run: Path) -> Check:
    """The files of every checkpoint, and that there is none that was not certified."""
    folder = run / select.FOLDER
    certified = certificate["checkpoints"]
    wrong = []
    for step, each in certified.items():
        path = folder / step
        if not path.is_dir():
            wrong.append(f"step {step} is missing in {folder}")
            continue
        differ = _files(each["files"], certificate_lib.file_digests(path))
        wrong += [f"step {step}: {line}" for line in differ]
    for step in select.steps_in(folder):
        if str(step) not in certified:
            wrong.append(f"step {step} came after the certificate")
    return _check("checkpoints", wrong, f"steps {', '.join(certified)}")


def of_data(certificate: Mapping[str, Any], path: Path, config: ConfigDict) -> list[Check]:
    """Classes, images and labels of training and evaluation.

    Args:
        certificate: that was read.
        path: of its file, beside which the leaves lie.
        config: of the run, with the places where the data are now.
    """
    try:
        data = certificate_lib.read_data(config)
    except (DataError, ConfigError) as error:
        where = (
            "where the data are now is said by --data=OLD=NEW; that of the run is "
            f"{config.data.root}"
        )
        return [Check("data", False, (str(error), where))]
    kept = certificate_lib.read_leaves(path)
    checks = []
    for role, source in data.sources.items():
        before, found = certificate["data"][role], data.leaves[role]
        names = list(source.class_names)
        wrong = []
        if names != certificate["classes"]:
            wrong.append(
                f"the classes are {', '.join(names)} now, and were {', '.join(certificate['classes'])}"
            )
        now = leaves_lib.root(found)
        if now != before["root"]:
            old = kept[role] if kept else []
            if old and leaves_lib.root(old) == before["root"]:
                wrong += _leaves(old, found)
            else:
                wrong.append(
                    f"the root is {now}, not {before['root']}; without {certificate_lib.leaves_file(path)} "
                    "as it was written nothing says which image differs"
                )
        good = f"{len(found)} images, {sum(leaf.objects for leaf in found)} objects, root {now}"
        checks.append(_check(f"{role} data", wrong, good))
    return checks


def of_licences(certificate: Mapping[str, Any]) -> Check | None:
    """The files that state licences; None where there are none."""
    wrong, count = [], 0
    for each in certificate["licences"]:
        if "sha256" not in each:
            continue
        count += 1
        path = each["source"]
        if not os.path.isfile(path):
            wrong.append(f"{path} is missing")
            continue
        try:
            found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except OSError as error:
            wrong.append(f"{path} cannot be read ({error.strerror})")
            continue
        if found != each["sha256"]:
            wrong.append(f"{path} was changed")
    return _check("licences", wrong, f"{count} files") if count else None


def _files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """How two sets of files differ, a line for each."""
    words = {(True, True): "was changed", (True, False): "is missing", (False, True): "is new"}
    return [
        f"{name} {words[name in before, name in now]}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _leaves(before: Sequence[Leaf], now: Sequence[Leaf]) -> list[str]:
    """How the images of two sets differ, a line for each."""
    old, new = ({leaf.id: leaf for leaf in each} for each in (before, now))
    lines = [f"image {id} is missing" for id in old if id not in new]
    for leaf in now:
        name = f"image {leaf.id}" + (f" ({', '.join(leaf.files)})" if leaf.files else "")
        was = old.get(leaf.id)
        if was is None:
            lines.append(f"{name} is new")
        elif was.image != leaf.image:
            lines.append(f"{name} {'cannot be read' if leaf.image == ABSENT else 'was changed'}")
        if was is not None and was.labels != leaf.labels:
            lines.append(f"{name}: its labels were changed")
    return lines or ["the images come in another order"]
