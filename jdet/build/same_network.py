"""Whether weights fit the network of another config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jdet import config as config_lib
from jdet.build.detector_parts import test_keys
from jdet.build.groups import defaults
from jdet.types import ConfigError


def check_same_network(config: ConfigDict, trained: ConfigDict, workdir: str | Path) -> None:
    """Refuses to decode weights with another layout than they were trained for.

    Raises:
        ConfigError: lists the keys that differ.
    """

    def network(c: ConfigDict) -> dict[str, Any]:
        free = {f"model.{key}" for key in test_keys(c)}
        # A field that is newer than the run had its default then.
        known = {**defaults(c), **config_lib.flatten({"model": c.model.to_dict()})}
        network = {k: v for k, v in known.items() if k.startswith("model.") and k not in free}
        return {f"config.{k}": v for k, v in {"input_size": c.input_size, **network}.items()}

    ours, theirs = network(config), network(trained)
    different = [
        f"{key}={ours.get(key)!r} (trained with {theirs.get(key)!r})"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]
    if different:
        raise ConfigError(
            f"the config is not that of the run in {workdir}: {', '.join(different)}; give the config "
            "the run was trained with, or leave it out (jdet.run.evaluate(workdir))"
        )
