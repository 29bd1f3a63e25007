"""A run and its data at other places than when they were certified."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jdet.train.folders import CONFIG
from jdet.types import ConfigError


def parse(given: Sequence[str]) -> dict[str, str]:
    """Old and new place of every ``--data=OLD=NEW``.

    Raises:
        ConfigError: one is not of this form, or the new place is not there.
    """
    found = {}
    for each in given:
        old, _, new = each.partition("=")
        if not old or not new:
            raise ConfigError(f"--data={each}; write --data=OLD=NEW, such as data/voc=/mnt/voc")
        if not Path(new).expanduser().exists():
            raise ConfigError(f"--data={each}: {new} does not exist; name where the data are now")
        found[old.rstrip("/")] = str(Path(new).expanduser())
    return found


def with_data(config: ConfigDict, places: Mapping[str, str]) -> ConfigDict:
    """A config whose data lie at other places.

    Raises:
        ConfigError: an old place is in none of its paths.
    """
    config = config.copy_and_resolve_references()
    used: set[str] = set()
    with config.unlocked():
        for group in (config.data, config.init_from):
            _replace(group, places, used)
    for old in places:
        if old not in used:
            raise ConfigError(
                f"--data={old}=…: no path of the run begins with it; config.data.root is "
                f"{config.data.root!r}, so write --data={config.data.root}=NEW"
            )
    return config


def _replace(group: ConfigDict, places: Mapping[str, str], used: set[str]) -> None:
    for key, value in list(group.items()):
        if isinstance(value, ConfigDict):
            _replace(value, places, used)
        elif isinstance(value, str):
            for old, new in places.items():
                if value == old or value.startswith(f"{old}/"):
                    group[key] = new + value[len(old) :]
                    used.add(old)


def run_of(certificate: Mapping[str, Any], path: Path, given: str) -> Path:
    """The folder of the run that a certificate is about.

    Args:
        certificate: that was read.
        path: of its file.
        given: where the user says that the run is; "": beside the certificate, or where it was.

    Raises:
        ConfigError: there is no run there.
    """
    places = (
        [Path(given).expanduser()] if given else [path.parent, Path(certificate["run"]["path"])]
    )
    for place in places:
        if os.path.isfile(place / CONFIG):  # a name may be too long, or none
            return Path(os.path.abspath(place))
    raise ConfigError(
        f"{' and '.join(map(str, places))}: no run there; name the folder of the run that {path} is about "
        "with --run=FOLDER"
    )
