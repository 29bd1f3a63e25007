"""Experiment files: ``file.py`` with ``get_config``, and the arguments after a colon."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jdet.types import ConfigError, DataError, nearest


def _nothing(config: ConfigDict) -> None:
    """What the command line sets where there is none."""


_SETTINGS: ContextVar[Callable[[ConfigDict], None]] = ContextVar("settings", default=_nothing)


def apply_settings(config: ConfigDict) -> None:
    """Sets what the command line sets under ``config.data``, of the keys that the config has already.

    For a ``get_config`` that reads its data: what is derived from them is then derived from those the
    command line means. All of the command line is applied to the finished config in any case.
    """
    _SETTINGS.get()(config)


def from_file(experiment: str, settings: Callable[[ConfigDict], None] = _nothing) -> ConfigDict:
    """The config of an experiment, as ``--config`` takes it.

    Args:
        experiment: ``file.py``, or ``file.py:key=value,…`` with arguments for its ``get_config``.
        settings: what ``apply_settings`` does to a config while it is made.

    Raises:
        ConfigError: there is no such file, it makes no config, or it fails; the line is named.
        DataError: raised by the experiment.
    """
    name, colon, arg = experiment.partition(":")
    path = Path(name)
    if not path.is_file():
        others = {p.name for p in path.parent.glob("*.py")} if path.parent.is_dir() else set()
        raise ConfigError(f"{name or '--config'} is no experiment file{nearest(path.name, others)}")
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{name} is no experiment file; it must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look it up
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # classes of one's own beside the experiment, as ``module:Class``
        sys.path.append(folder)
    token = _SETTINGS.set(settings)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(*([arg] if colon else []))
    except (ConfigError, DataError):
        raise
    except Exception as error:
        where = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
        line = f", line {where[-1].lineno}" if where else ""
        raise ConfigError(f"{name}{line}: {type(error).__name__}: {error}") from error
    finally:
        _SETTINGS.reset(token)
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"{name}: get_config returns a {type(config).__name__}, not a ConfigDict")
    return config


def parse_arg(arg: str, **defaults: Any) -> ConfigDict:
    """Reads the part after the colon of ``--config=experiments/x.py:cpu,lr=0.01``.

    ``key=value`` sets a key, a bare ``key`` sets a boolean one. A value takes the type of its default.

    Args:
        arg: comma-separated settings; may be empty.
        **defaults: every key that exists, with its default.

    Raises:
        ConfigError: unknown key or a value of another type.
    """
    settings = ConfigDict(defaults)
    for item in filter(None, (part.strip() for part in (arg or "").split(","))):
        key, equals, text = item.partition("=")
        if key not in defaults:
            raise ConfigError(
                f"experiment argument {key!r} does not exist{nearest(key, defaults)}; "
                f"there are {', '.join(f'{k}={v}' for k, v in defaults.items())}"
            )
        kind = type(defaults[key])
        if not equals:
            text = "true" if kind is bool else ""
        try:
            settings[key] = _BOOLEANS[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"experiment argument {item!r}: {key} takes "
                f"{_KINDS.get(kind, kind.__name__)}, such as {defaults[key]}"
            ) from error
    return settings


_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
