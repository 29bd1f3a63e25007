"""Config groups of classes: which keys a class has, a complete group of them, and the object of a group."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from jdet.build.table import resolve
from jdet.config import nearest, ranges
from jdet.types import ConfigError

BOUND = (
    "norm",
    "head_norm",
    "dtype",
    "remat",
    "on_error",
    "design_cells",
    "image_kind",
    "image_settings",
    "taps",
    "input_size",
    "padded_inputs",
    "class_weights",
)
"""Fields that the program fills in; a config group does not carry them as plain values."""

OVERRIDABLE = ("on_error",)
"""Those of them that a group may name all the same, to differ from the whole config."""

DEFAULTS_OF_NORM = {"": "batch", "_momentum": 0.9, "_epsilon": 1e-5}
"""Keys of a norm in the group of a detector, by what follows its name, and their defaults: the kind
(``jdet.nn.norm``), the share of the old running statistics in the new, and what is added to variances."""

NORM_OF_KIND = {"backbone": "norm", "neck": "norm"}
"""Which norm of the detector's group a nested part gets as its ``norm``; all other kinds: ``head_norm``."""


def class_of(factory: Callable[..., Any]) -> Callable[..., Any]:
    """The class that a row of the table makes an object of."""
    return factory.func if isinstance(factory, functools.partial) else factory


def parts_of(factory: Callable[..., Any]) -> Mapping[str, str]:
    """The nested groups that a class declares: field → kind, in the order in which they are made."""
    return getattr(class_of(factory), "parts", {})


def fields(factory: Callable[..., Any]) -> dict[str, Any]:
    """Names and defaults of what a class can be given; ``inspect.Parameter.empty`` where required."""
    preset = factory.keywords if isinstance(factory, functools.partial) else {}
    cls = class_of(factory)
    if dataclasses.is_dataclass(cls):
        empty = inspect.Parameter.empty
        found = {
            f.name: empty if f.default is dataclasses.MISSING else f.default
            for f in dataclasses.fields(cls)
            if f.init and f.name not in ("parent", "name")
        }
    else:
        found = {k: p.default for k, p in inspect.signature(cls).parameters.items()}
    return {**found, **preset}


def shared_fields(factory: Callable[..., Any]) -> dict[str, Any]:
    """Keys of a detector's group from which its parts and norms are made, with their defaults.

    ``taps``: backbone stages that are levels; empty: all from the detector's ``finest_stride`` on.
    ``norm…`` of backbone and neck, ``head_norm…`` of everything else; each where a part or a field
    can use it.
    """
    parts, known = parts_of(factory), fields(factory)
    wanted = {NORM_OF_KIND.get(kind, "head_norm") for kind in parts.values()}
    wanted |= {name for name in ("norm", "head_norm") if name in known}
    found: dict[str, Any] = {"taps": ()} if "backbone" in parts.values() else {}
    for name in sorted(wanted, reverse=True):
        found |= {f"{name}{end}": default for end, default in DEFAULTS_OF_NORM.items()}
    return found


def group(kind: str, name: str, **values: Any) -> ConfigDict:
    """A complete config group: every plain field of the class with its default, and ``values``.

    Experiments use it so that all that can be set can also be set on the command line; for that, a
    field whose default is None becomes a placeholder, of a tuple where it takes a sequence and of a
    string elsewhere.

    Raises:
        ConfigError: a value's name is not a field of the class.
    """
    factory = resolve(kind, name)
    bound = {*BOUND, *(["num_classes"] if kind == "detector" else [])}
    found = fields(factory)
    known = {key: default for key, default in found.items() if key not in bound - {*OVERRIDABLE}}
    plain: dict[str, Any] = {
        key: default
        for key, default in known.items()
        if key not in bound and isinstance(default, bool | int | float | str | tuple)
    }
    for key, default in known.items():
        if default is None:
            annotation = str(inspect.signature(factory).parameters[key].annotation)
            sequence = re.search("sequence|tuple", annotation, re.IGNORECASE)
            plain[key] = config_dict.placeholder(tuple if sequence else str)
    if kind == "detector":
        plain.update(shared_fields(factory))
    for key in values:
        if key not in known and key not in plain:
            raise ConfigError(
                f"{kind} {name!r} has no field {key!r}{nearest(key, {**known, **plain})}; "
                f"it has {', '.join(sorted({**known, **plain}))}"
            )
    return ConfigDict({"name": name, **plain, **values})


GROUPS = {
    "model": "detector",
    "resize": "resize",
    "augment": "augment",
    "data.train": "source",
    "data.eval": "source",
}
"""Groups of a whole config that name a class, by key, and their kinds."""


def class_groups(config: ConfigDict) -> Iterator[tuple[str, str, ConfigDict]]:
    """Key, kind and value of every group of a whole config that names a class; parts follow the whole.

    A group may be replaced while this runs; the parts that follow are then those of the new one.
    """
    waiting = list(GROUPS.items())
    while waiting:
        key, kind = waiting.pop(0)
        found = _lookup(config, key)
        if not isinstance(found, ConfigDict) or "name" not in found:
            continue
        yield key, kind, found
        parts = parts_of(resolve(kind, _lookup(config, key)["name"]))
        waiting[:0] = [(f"{key}.{field}", part) for field, part in parts.items()]


def _lookup(config: ConfigDict, key: str) -> Any:
    found: Any = config
    for part in key.split("."):
        found = found.get(part)
    return found


def defaults(config: ConfigDict) -> dict[str, Any]:
    """Defaults of the classes that a config names, by dotted key, nested parts included."""
    found: dict[str, Any] = {}
    for key, kind, named in class_groups(config):
        values = group(kind, named["name"]).to_dict()
        found |= {f"{key}.{field}": value for field, value in values.items() if field != "name"}
    return found


def renamed(kind: str, old: ConfigDict, name: str) -> ConfigDict:
    """The group of another class in place of ``old``, with all keys of that class.

    What was set is kept where the other class has the key too: values other than the old class's
    defaults, and nested parts. Fields without a default are kept where the old group has them, and can
    be set on the command line in any case.

    Raises:
        ConfigError: there is no such class.
    """
    before, new, factory = group(kind, old["name"]), group(kind, name), resolve(kind, name)
    with new.unlocked():
        for key in required(factory):
            new[key] = config_dict.placeholder(str)
    for key, value in old.items(preserve_field_references=True):
        changed = key not in before or old[key] != before[key]
        if key in parts_of(factory) or (key != "name" and key in new and changed):
            with contextlib.suppress(TypeError):  # of another type: not the same setting
                new[key] = value
    return new


def required(factory: Callable[..., Any]) -> list[str]:
    """Fields that a group must give: they have no default, and the program does not fill them in."""
    filled = {*BOUND, *parts_of(factory), "num_classes"}
    found = fields(factory).items()
    return [
        key for key, default in found if default is inspect.Parameter.empty and key not in filled
    ]


def make(kind: str, config: Mapping[str, Any], where: str, **bound: Any) -> Any:
    """The object of a config group.

    Args:
        kind: row of the table.
        config: the group, with ``name``.
        where: its key in the whole config, for messages.
        **bound: fields the program itself fills in; those the class does not have are left out.

    Raises:
        ConfigError: unknown name or key, or a value the class refuses.
    """
    values = {k: v for k, v in config.items() if k != "name"}
    factory = resolve(kind, config["name"])
    known = fields(factory)
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{where}.{key} is not a field of {kind} {config['name']!r}{nearest(key, known)}; "
                f"it has {', '.join(sorted(known)) or 'none'}. Where the class is changed in Python, make "
                f"the group again: jdet.build.group({kind!r}, {config['name']!r}, …)"
            )
    for key in required(factory):
        if values.get(key) is None and key not in bound:
            raise ConfigError(f"{where}.{key} is missing: {kind} {config['name']!r} needs a value")
    ranges.check_fields(class_of(factory), values, where)
    try:
        return factory(**values, **{k: v for k, v in bound.items() if k in known})
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError) or type(error).__name__ == "DataError":
            raise
        raise ConfigError(f"{where}: {error}") from error
