"""Configs stored in the folders of runs, also by earlier versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jdet.config.checks import CLASS_GROUPS
from jdet.config.defaults import get_defaults
from jdet.types import ConfigError, ImageKind


def load(path: str | Path) -> ConfigDict:
    """Reads the ``config.json`` of a run; keys that are newer than the run get their defaults.

    Raises:
        ConfigError: no such file, or not a config.
    """
    path = Path(path)
    try:
        stored = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; {path.parent} holds no run") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not a config: {error}") from error
    if not isinstance(stored, dict):
        raise ConfigError(f"{path} is not a config: it has no keys")
    config = get_defaults()
    for group in CLASS_GROUPS:  # replaced whole: their keys depend on the class
        *parents, last = group.split(".")[1:]
        holder = config
        for part in parents:
            holder = holder[part]
        holder[last] = ConfigDict()
    try:
        with config.unlocked():
            config.update(_tuples(complete(stored)))
    except (AttributeError, TypeError) as error:
        raise ConfigError(f"{path} is not a config: {error}") from error
    return config


def complete(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored config, migrated; keys that are newer than it have their defaults.

    Args:
        stored: what a ``config.json`` holds.
    """
    return _with_defaults(migrate(stored), json.loads(get_defaults().to_json()), "config")


def _with_defaults(stored: dict, defaults: dict, where: str) -> dict[str, Any]:
    if where in CLASS_GROUPS and stored.get("name", defaults["name"]) != defaults["name"]:
        return stored  # the defaults are those of another class
    filled = defaults | stored
    for key, default in defaults.items():
        if isinstance(default, dict) and isinstance(filled[key], dict):
            filled[key] = _with_defaults(filled[key], default, f"{where}.{key}")
    return filled


RENAMED = {
    "resize.mode": "resize.name",
    "eval.pictures": "eval.images",
    "eval.max_pictures": "eval.max_images",
}
"""Keys of configs stored by earlier versions, and what they are called now."""


def migrate(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A config stored by any earlier version with the keys and values of this one.

    Args:
        stored: nested groups of plain values, as ``config.json`` holds them; may lack keys. Not changed.
    """
    config = json.loads(json.dumps(stored))
    for old, new in RENAMED.items():
        group, _, key = old.rpartition(".")
        if key in config.get(group, {}):
            config[group][new.rpartition(".")[2]] = config[group].pop(key)
    # Groups that were flat carried the keys of other choices too.
    for group, name, kept in (("resize", "warp", ()), ("augment", "none", ("mean",))):
        if config.get(group, {}).get("name") == name:
            config[group] = {k: v for k, v in config[group].items() if k in ("name", *kept)}
    # Older versions made 8-bit RGB of all images.
    if "data" in config and "image" not in config["data"]:
        rgb = ImageKind()._asdict()
        config["data"]["image"] = {"high_byte": True, "found": {**rgb, "value_range": [0.0, 255.0]}}
    train, model = config.get("train", {}), config.get("model", {})
    if isinstance(train.get("remat"), bool):
        train["remat"] = "full" if train["remat"] else "none"
    if model.get("normalizer") == "picture":
        model["normalizer"] = "image"
    return config


def _tuples(value: Any) -> Any:
    """JSON has no tuples, configs have no lists."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
