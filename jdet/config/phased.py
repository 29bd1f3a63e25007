"""Configs of several trainings, one after the other: the common part, and what each phase sets over it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jdet.config.checks import flatten
from jdet.config.defaults import get_defaults
from jdet.types import ConfigError, nearest

BEFORE = "phase:"
"""Before the name of a phase in ``init_from.path``: the last weights of that phase of the same run."""


class Phase(NamedTuple):
    """One training of several.

    Attributes:
        name: of the phase, and of its folder.
        config: whole config of this training, without phases.
        sets: by dotted key what the phase sets over the common config, from the config.
    """

    name: str
    config: ConfigDict
    sets: dict[str, Any]


def split_phases(config: ConfigDict) -> tuple[Phase, ...]:
    """The trainings of a config with phases, each with a config of its own.

    A phase has the keys of the common config, with those of its own group ``config.phase.NAME`` in their
    place. A group that names a class (``name``) replaces the common one as a whole. The first phase starts
    as ``init_from`` says; the common ``init_from`` is for it alone. A later one starts from the last
    weights of the phase before, or what its own ``init_from.path`` names: ``"phase:NAME"`` or another run.

    Args:
        config: a whole config; not changed.

    Raises:
        ConfigError: no phases, one without a group, a group without a phase, or a key or value that the
            common config cannot have.
    """
    names, groups = tuple(config.phases), config.phase
    if not names:
        raise ConfigError("config.phases is empty: the config has no phases")
    _check_names(names, groups)
    found: list[Phase] = []
    for place, name in enumerate(names):
        own = config.copy_and_resolve_references()
        part = own.phase[name]
        with own.unlocked():
            own.phases, own.phase = (), ConfigDict()
            if place:
                own.init_from = get_defaults().init_from
            _merge(own, part, f"config.phase.{name}")
            if place and not own.init_from.path:
                own.init_from.path = f"{BEFORE}{names[place - 1]}"
        start = own.init_from.path
        if start.startswith(BEFORE) and start.removeprefix(BEFORE) not in names[:place]:
            raise ConfigError(
                f"config.phase.{name}.init_from.path={start!r} names no phase before {name}; "
                f"before it come {', '.join(names[:place]) or 'none'}"
            )
        if own.parallel.cpu_devices != config.parallel.cpu_devices:
            raise ConfigError(
                f"config.phase.{name}.parallel.cpu_devices={own.parallel.cpu_devices}: a process counts "
                "its devices once; set config.parallel.cpu_devices, for all phases"
            )
        found.append(Phase(name, own, flatten(part.to_dict())))
    return tuple(found)


def of_phase(config: ConfigDict, name: str = "") -> ConfigDict:
    """The config of one training: of a phase by its name, of the last where ``name`` is empty.

    A config without phases is its own.

    Raises:
        ConfigError: there is no such phase.
    """
    if not config.phases:
        if name:
            raise ConfigError(f"--phase={name}: the config has no phases; leave it out")
        return config
    phases = {phase.name: phase.config for phase in split_phases(config)}
    check_phase(name, phases)
    return phases[name or list(phases)[-1]]


def check_phase(name: str, names: Mapping[str, Any]) -> None:
    """Refuses the name of a phase that is none of ``names``; an empty one stands for any.

    Raises:
        ConfigError: lists those there are.
    """
    if name and name not in names:
        raise ConfigError(
            f"--phase={name} does not exist{nearest(name, names)}; there are {', '.join(names)}"
        )


def _check_names(names: tuple[Any, ...], groups: ConfigDict) -> None:
    for name in names:
        if not (isinstance(name, str) and re.fullmatch("[a-z][a-z0-9_]*", name)):
            raise ConfigError(
                f"config.phases names {name!r}, which is to be a folder; take small letters, digits and _, "
                "such as 'pretrain'"
            )
        if names.count(name) > 1:
            raise ConfigError(f"config.phases names {name!r} twice; give each phase its own name")
        if name not in groups:
            raise ConfigError(
                f"config.phases names {name!r}, but config.phase.{name} does not exist"
                f"{nearest(name, groups)}; give the phase a group of the keys that it sets"
            )
    for name in groups:
        if name not in names:
            raise ConfigError(
                f"config.phase.{name} belongs to no phase of config.phases={names!r}; add its name there, "
                "in its place, or remove the group"
            )


def _merge(target: ConfigDict, part: ConfigDict, where: str) -> None:
    for key, value in part.items():
        if key not in target:
            raise ConfigError(
                f"{where}.{key} is no key of the common config{nearest(key, target)}; there are "
                f"{', '.join(target)}"
            )
        if isinstance(value, ConfigDict) and "name" not in value:
            if not isinstance(target[key], ConfigDict):
                raise ConfigError(f"{where}.{key} is no group, but a value such as {target[key]!r}")
            _merge(target[key], value, f"{where}.{key}")
            continue
        try:
            target[key] = value
        except TypeError as error:
            raise ConfigError(
                f"{where}.{key}={value!r}; it must be like the common {target[key]!r}"
            ) from error
