"""Whether a JSON has the form of a certificate: all keys that verifying it reads, each of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROLES = ("train", "eval")

_KINDS: dict[str, type] = {
    **{"id": str, "run": dict, "classes": list, "data": dict, "licences": list, "config": dict},
    **{"code": dict, "modules": dict, "stretches": list, "began_with": list},
    **{"checkpoints": dict, "metrics": dict},
}
_DEEPEST = 64
"""Levels of groups and lists; a config has six."""

_DIGITS = 18
"""Of a step, which is then a number of 64 bits."""


class Malformed(ValueError):
    """Not the form of a certificate; the text is the key that is missing or of another kind."""


def check(found: Mapping[str, Any]) -> None:
    """Checks the keys of a certificate and those inside of them.

    Args:
        found: what a JSON file holds.

    Raises:
        Malformed: one is missing or of another kind, such as ``data.train.root``.
    """
    _nested(found, "", 0)
    _have(found, "", **_KINDS)
    _have(found["run"], "run.", path=str)
    _all(dict(enumerate(found["classes"])), "classes.", str)
    _have(found["data"], "data.", **dict.fromkeys(ROLES, dict))
    for role in ROLES:
        _have(found["data"][role], f"data.{role}.", images=int, objects=int, root=str)
    for key in ("code", "modules"):
        _all(found[key], f"{key}.", str)
    for each, where in _groups(found, "licences"):
        if "sha256" in each:
            _have(each, where, source=str, sha256=str)
    for each, where in _groups(found, "stretches"):
        _have(each, where, first=int, code=str, versions=dict, machine=dict)
    for each, where in _groups(found, "began_with"):
        if "run" in each:
            _have(each, where, run=str, step=int)
    _checkpoints(found["checkpoints"])


def _checkpoints(found: Mapping[str, Any]) -> None:
    if not found:
        raise Malformed("checkpoints.STEP")
    for step, each in found.items():
        number = step.isascii() and step.isdecimal() and len(step) <= _DIGITS
        if not number or str(int(step)) != step or not isinstance(each, dict):
            raise Malformed(f"checkpoints.{step}")
        _have(each, f"checkpoints.{step}.", files=dict)
        _all(each["files"], f"checkpoints.{step}.files.", str)


def _groups(found: Mapping[str, Any], key: str) -> list[tuple[dict[str, Any], str]]:
    """The groups of a list, and the beginning of the names of their keys."""
    _all(dict(enumerate(found[key])), f"{key}.", dict)
    return [(each, f"{key}.{place}.") for place, each in enumerate(found[key])]


def _have(group: Mapping[str, Any], where: str, **kinds: type) -> None:
    for key in kinds:
        _all({key: group.get(key)}, where, kinds[key])


def _all(values: Mapping[Any, Any], where: str, kind: type) -> None:
    for key, value in values.items():
        if not isinstance(value, kind) or isinstance(value, bool):
            raise Malformed(f"{where}{key}")


def _nested(value: Any, where: str, depth: int) -> None:
    """Refuses what is nested without end, on which the reading of a config would run out of stack."""
    if depth > _DEEPEST:
        raise Malformed(where.split(".")[0])
    held = enumerate(value) if isinstance(value, list) else ()
    for key, inner in value.items() if isinstance(value, dict) else held:
        _nested(inner, f"{where}.{key}".lstrip("."), depth + 1)
