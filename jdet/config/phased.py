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
    as ``init_from`` and ``calibration`` say; the common groups of these names are for it alone. A later one
    starts from the last weights of the phase before, or what its own ``init_from.path`` names:
    ``"phase:NAME"`` or another run.

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
                usual = get_defaults()
                own.init_from, own.calibration = usual.init_from, usual.calibration
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


def names_class(key: str, group: Any) -> bool:
    """Whether a group of a phase names a class, and so replaces the common one as a whole.

    Args:
        key: dotted key ``config.phase.NAME…`` of the group; ``optimizer.name`` is an option among others.
        group: its value.
    """
    return isinstance(group, ConfigDict) and "name" in group and key.split(".")[3:] != ["optimizer"]


def complete_phase(config: ConfigDict, key: str) -> None:
    """Gives a phase a key of the common config that it lacks, with the common value, so that it can be set.

    Args:
        config: with phases or without; changed in place.
        key: dotted, such as ``phase.pretrain.optimizer.lr``; others are left alone, and so is one that the
            common config lacks or that lies in a group which replaces the common one.
    """
    first, *rest = key.split(".")
    if first != "phase" or len(rest) < 2 or rest[0] not in config.phase:
        return
    value: Any = config
    for part in rest[1:]:
        if not isinstance(value, ConfigDict) or part not in value:
            return
        value = value[part]
    if isinstance(value, ConfigDict) or (rest[-1] == "name" and rest[1:-1] != ["optimizer"]):
        return  # a group, or a class, whose keys would be missing
    here, where = config.phase[rest[0]], f"config.phase.{rest[0]}"
    with config.unlocked():
        for i, part in enumerate(rest[1:], 2):
            if not isinstance(here, ConfigDict) or names_class(where, here):
                return
            if part not in here:
                here[part] = value if i == len(rest) else ConfigDict()
            here, where = here[part], f"{where}.{part}"


def check_common(config: ConfigDict, key: str) -> None:
    """Refuses to set a common key that no phase would have, for each sets it itself.

    Args:
        config: with phases or without.
        key: dotted, such as ``train.steps``.

    Raises:
        ConfigError: names the keys of the phases.
    """
    first, *_ = key.split(".")
    if not config.phases or first in ("phases", "phase"):
        return
    # The common groups of these names are for the first phase alone.
    names = config.phases[: 1 if first in ("init_from", "calibration") else None]
    if all(name in config.phase and _sets(config.phase[name], key, name) for name in names):
        here = [name for name in names if _has(config.phase[name], key)]
        keys = ", ".join(f"--config.phase.{name}.{key}" for name in here)
        raise ConfigError(
            f"config.{key} is for phases that do not set it themselves, and here "
            f"{'each' if len(names) > 1 else names[0]} does; "
            + (f"set {keys}" if here else "none of them has this key: leave it out")
        )


def _sets(part: ConfigDict, key: str, name: str) -> bool:
    """Whether the group of a phase has a key, or a class in the place of a group around it."""
    where, here = f"config.phase.{name}", part
    for step in key.split("."):
        if not isinstance(here, ConfigDict) or step not in here:
            return False
        here, where = here[step], f"{where}.{step}"
        if names_class(where, here):
            return True
    return True


def _has(part: ConfigDict, key: str) -> bool:
    for step in key.split("."):
        if not isinstance(part, ConfigDict) or step not in part:
            return False
        part = part[step]
    return True


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
    """Sets the keys of a part; a group that names a class comes in the place of the target's."""
    for key, value in part.items():
        if key not in target:
            raise ConfigError(
                f"{where}.{key} is no key of the common config{nearest(key, target)}; there are "
                f"{', '.join(target)}"
            )
        if isinstance(value, ConfigDict) and not names_class(f"{where}.{key}", value):
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
