"""The certificate of a run, one JSON: what its weights were made from, each thing by a digest of its own.

``id`` is the SHA-256 of all the rest, written in one way (``_canonical``), so that whoever knows the id
can tell whether a certificate was changed. Beside it lie the leaves of the Merkle trees over the images,
from which ``jdet.verify`` tells the one that changed.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jdet import build
from jdet.atomic_files import plain, write_text
from jdet.certify import form
from jdet.certify import leaves as leaves_lib
from jdet.certify import licences as licences_lib
from jdet.certify.form import ROLES
from jdet.certify.leaves import ABSENT, Leaf
from jdet.train import provenance
from jdet.train.checkpoints import manifest, select
from jdet.train.folders import CONFIG, read_json
from jdet.train.init import transforms
from jdet.train.workdir import Run, open_run
from jdet.types import ConfigError, DataError, Source

FORMAT = 1


class Data(NamedTuple):
    """The images of a run, by role.

    Attributes:
        sources: of training and evaluation.
        leaves: of each.
    """

    sources: dict[str, Source]
    leaves: dict[str, list[Leaf]]


def read_data(config: ConfigDict) -> Data:
    """Opens the data of a config and takes their digests.

    Raises:
        ConfigError: a source cannot be made.
        DataError: a data set is missing or contradicts itself.
    """
    sources = dict(zip(ROLES, build.sources(config), strict=True))
    return Data(sources, {role: leaves_lib.leaves(each) for role, each in sources.items()})


def certify(
    run: str | Path, *, phase: str = "", licences: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], Data]:
    """The certificate of a run, and the data that it is about.

    Args:
        run: folder of the run.
        phase: of a run with phases; "": the last that is finished.
        licences: by folder what is stated of it.

    Raises:
        ConfigError: there is no run, it has no checkpoint, or a licence is of a folder without images.
        DataError: the data are not there, an image cannot be read, or they have other classes than the
            run.
    """
    opened = open_run(run, phase)
    steps = select.steps_in(opened.checkpoints)
    if not steps:
        raise ConfigError(
            f"{opened.path} has no checkpoint, so there are no weights to certify; train it first, or "
            "name another run"
        )
    data = read_data(opened.config)
    _check(opened, data)
    body = {
        "format": FORMAT,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "run": _of_run(opened, phase),
        "classes": list(opened.config.class_names),
        "data": {role: _of_data(data, role) for role in ROLES},
        "licences": _licences(opened.config, data, licences or {}),
        "config": read_json(opened.path / CONFIG, "put back a copy"),
        "code": provenance.code_files(),
        "modules": own_modules(opened.config),
        "stretches": opened.record.get("stretches", []),
        "began_with": transforms.recorded_in(opened.record),
        "checkpoints": {
            str(step): _of_checkpoint(opened.checkpoints / str(step)) for step in steps
        },
        "metrics": opened.record.get("metrics", {}),
    }
    body = plain(json.loads(json.dumps(plain(body))))
    return {"id": digest(body), **body}, data


def digest(certificate: Mapping[str, Any]) -> str:
    """The id of a certificate: SHA-256 of all but the id."""
    body = {key: value for key, value in certificate.items() if key != "id"}
    return hashlib.sha256(_canonical(body)).hexdigest()


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def write(certificate: Mapping[str, Any], data: Data, path: Path) -> None:
    """Writes a certificate and its leaves, each as a whole; what is there is replaced.

    Raises:
        ConfigError: it cannot be written.
    """
    lines = (
        json.dumps([role, leaf.id, leaf.image, leaf.labels])
        for role in ROLES
        for leaf in data.leaves[role]
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(leaves_file(path), "\n".join(lines) + "\n")
        write_text(path, json.dumps(certificate, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}); name another file with --out=FILE"
        ) from error


def read(path: Path) -> dict[str, Any]:
    """Reads a certificate, as it is: whether it was changed is for ``jdet.verify`` to say.

    Raises:
        ConfigError: there is none, it is none, it is of another version, or a key is missing or of another
            kind.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        # Neither NaN nor half a character, which could be neither hashed nor printed.
        json.dumps(found, allow_nan=False, ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); name a certificate of jdet.certify"
        ) from None
    if not isinstance(found, dict) or "format" not in found:
        raise ConfigError(f"{path} is no certificate; name one that jdet.certify has written")
    if found["format"] != FORMAT:
        raise ConfigError(
            f"{path} is a certificate of format {found['format']}, and this version of jdet knows format "
            f"{FORMAT}; use the version that made it"
        )
    try:
        form.check(found)
    except form.Malformed as error:
        raise ConfigError(
            f"{path} has no usable {str(error)!r}; name one that jdet.certify has written"
        ) from None
    return found


def read_leaves(path: Path) -> dict[str, list[Leaf]] | None:
    """The leaves beside a certificate; None where they are not there or cannot be read."""
    found: dict[str, list[Leaf]] = {role: [] for role in ROLES}
    try:
        for line in leaves_file(path).read_text(encoding="utf-8").splitlines():
            role, *texts = json.loads(line)
            if not all(isinstance(text, str) for text in texts):
                return None
            id, image, labels = texts
            found[role].append(Leaf(id, image, labels, 0))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found


def leaves_file(path: Path) -> Path:
    """Where the leaves of a certificate lie."""
    return path.with_name(f"{path.stem}.leaves.jsonl")


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by its path in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(
                    file, "sha256"
                ).hexdigest()
    return found


def own_modules(config: ConfigDict) -> dict[str, str]:
    """SHA-256 of the files of classes that are not jdet's (``module:Class``), by the name in the config."""
    found = {}
    for _, kind, group in build.class_groups(config):
        name = group.get("name") or ""
        if ":" not in name:
            continue
        build.resolve(kind, name)
        file = importlib.import_module(name.partition(":")[0]).__file__
        if file:
            found[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return found


def _check(opened: Run, data: Data) -> None:
    names = tuple(opened.config.class_names)
    for role, source in data.sources.items():
        if tuple(source.class_names) != names:
            raise DataError(
                f"{opened.path} was trained on the classes {', '.join(names)}, and config.data.{role} has "
                f"{', '.join(source.class_names)} now; put the class list back"
            )
    every = [leaf for found in data.leaves.values() for leaf in found]
    absent = [", ".join(leaf.files) for leaf in every if leaf.image == ABSENT]
    if absent and opened.config.data.on_error == "raise":
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise DataError(f"{absent[0]}{more} cannot be read; put the images back that the run had")


def _of_run(opened: Run, phase: str) -> dict[str, Any]:
    kept = ("status", "step", "steps", "started", "ended", "train_images", "num_examples")
    return {
        "path": str(opened.path),
        "phase": phase,
        **{key: opened.record[key] for key in kept if key in opened.record},
    }


def _of_data(data: Data, role: str) -> dict[str, Any]:
    found = data.leaves[role]
    return {
        "images": len(found),
        "objects": sum(leaf.objects for leaf in found),
        "root": leaves_lib.root(found),
    }


def _of_checkpoint(path: Path) -> dict[str, Any]:
    try:
        about = manifest.verify(path)
    except manifest.Damaged as error:
        raise ConfigError(
            f"checkpoint {path} is damaged ({error}); put back a copy of it, or remove the folder"
        ) from error
    return {"files": file_digests(path), "metrics": about["metrics"]}


def _licences(config: ConfigDict, data: Data, stated: Mapping[str, str]) -> list[dict[str, Any]]:
    files = [leaf.files[0] for found in data.leaves.values() for leaf in found if leaf.files]
    roots = [
        str(group.root) for group in (config.data.train, config.data.eval) if group.get("root")
    ]
    return licences_lib.of_folders(licences_lib.image_folders(files), roots, stated)


def doubts(certificate: Mapping[str, Any]) -> list[str]:
    """What a certificate cannot vouch for, in sentences; mostly none."""
    found = []
    code = provenance.digest_of(certificate["code"])
    stretches = certificate["stretches"]
    if not stretches:
        found.append(
            "the run is of a version of jdet that did not record its code and machine: that they are those "
            "of the certificate is not known"
        )
    for each in stretches:
        if each["code"] != code:
            found.append(
                f"from step {each['first']} on the run was trained with other code (digest "
                f"{each['code'][:12]}, commit {each['versions'].get('commit', 'unknown')}) than was "
                f"certified ({code[:12]})"
            )
    for each in certificate["began_with"]:
        if "run" in each:
            found.append(
                f"it began with weights of {each['run']}, step {each['step']}, which a certificate of that "
                "run speaks of"
            )
    return found
