"""Checks that all processes run the same config, code and data, and lists the differences."""

from __future__ import annotations

import collections
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jdet.parallel import broadcast
from jdet.types import ConfigError

_LONGEST = 120  # characters of a value in a message
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def check(facts: Mapping[str, Any]) -> None:
    """Compares devices, code and further facts of all processes.

    Args:
        facts: by name, such as ``config.train.batch_size``; values that JSON holds.

    Raises:
        ConfigError: lists what differs and which process has what; the same on all processes.
    """
    if jax.process_count() == 1:
        return
    _check_devices()
    code = {"code (digest of jdet's files)": code_digest()}
    code |= {f"version of {name}": importlib.metadata.version(name) for name in _PACKAGES}
    found = broadcast.gather(json.loads(json.dumps({**facts, **code})))
    names = broadcast.host_names()
    lines = []
    for key in sorted({key for one in found for key in one}):
        values = collections.defaultdict(list)
        for name, one in zip(names, found, strict=True):
            values[_text(one.get(key, "absent"))].append(name)
        if len(values) > 1:
            lines.append(f"{key}: " + "; ".join(f"{v} on {_list(w)}" for v, w in values.items()))
    if lines:
        raise ConfigError(
            "the processes of this run do not agree:\n  "
            + "\n  ".join(lines)
            + "\nStart the same command with the same code and data on every host."
        )


def code_digest() -> str:
    """Hash of the source files of this package."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.blake2b(digest_size=6)
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _check_devices() -> None:
    """The batch is split evenly over processes, and each splits its part over its devices."""
    devices = jax.devices()
    counts = collections.Counter(device.process_index for device in devices)
    if len({counts[i] for i in range(jax.process_count())}) > 1:
        each = ", ".join(f"process {i} has {counts[i]}" for i in range(jax.process_count()))
        raise ConfigError(
            f"the processes of this run have different numbers of {devices[0].platform} devices: "
            f"{each}; give all the same (a device may be broken or taken), or leave that host out"
        )


def _text(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 2]} …"


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
