"""Where in the network an instruction of a compiled program comes from, by its metadata.

An ``op_name`` such as ``jit(scaled)/transpose(jvp(SSD.losses))/SSD/SSD.levels/backbone/conv1/norm/mul``
holds the path of the Flax module, and whether the forward or the backward pass runs it. What runs outside
of any module, such as the matching of a loss, is named by the file that computes it, which the tables of
stack frames at the top of the program's text tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

PHASES = ("forward", "recomputed", "backward", "update")
"""Parts of a step: recomputed is what rematerialisation runs again, update what follows the gradients."""

UPDATE = ("gradients", "statistics", "optimizer", "step")
"""Scopes of the training step that follow the backward pass, and what has none."""

_CONTROL = re.compile(
    r"while|body|cond|scan|checkpoint|remat2?|rematted_computation|shard_map|pjit|closed_call"
    r"|custom_(jvp|vjp)_call|vmap|transpose|branch_\d+_fun"
)
_SCOPE = re.compile(r"^(?:transpose\()?jvp\(([a-z_]\w*)\)\)?$")
"""A named scope around what is differentiated."""

_METHOD = re.compile(r"\b[A-Z]\w*\.([a-z_]\w*)")
_FRAME = re.compile(r"\bstack_frame_id=(\d+)")
_SECTIONS = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


class Place(NamedTuple):
    """Where an instruction comes from.

    Attributes:
        module: path such as ``backbone/stem/conv1/norm``; of what no module runs ``losses/`` and the file,
            such as ``losses/ops.matching.ssd``; "" where nothing is known.
        phase: one of ``PHASES``.
    """

    module: str
    phase: str


def place(op_name: str, source: str = "") -> Place:
    """The place of an ``op_name``.

    Args:
        op_name: of the metadata; of several joined by XLA the first counts.
        source: name of the file that computes it; see ``files``.
    """
    first = op_name.split(";")[0]
    parts = [_SCOPE.sub(r"\1", part) for part in first.split("/")[:-1]]
    parts = [part for part in parts if part.isidentifier()]
    parts = [part for part in parts if not _CONTROL.fullmatch(part)]
    if parts and parts[0][:1].isupper():
        parts = parts[1:]  # the detector itself
    module = "/".join(parts)
    if not module and op_name:
        method = _METHOD.search(first)
        module = "/".join(filter(None, (method.group(1) if method else "step", source)))
    if "rematted_computation" in first:
        phase = "recomputed"
    elif "transpose(" in first:
        phase = "backward"
    else:
        after = module.split("/")[0] in UPDATE
        phase = "update" if after else "forward"
    return Place(module, phase)


def frame_of(attributes: str) -> int:
    """Number of the stack frame in the attributes of an instruction; 0: there is none."""
    found = _FRAME.search(attributes)
    return int(found.group(1)) if found else 0


def files(text: str) -> dict[int, str]:
    """Names of the files that wrote the instructions of a program, by stack frame.

    A name is the file's path within jdet, such as ``ops.matching.ssd``, or of another file its name. Frames
    inside of installed packages count as their callers.

    Args:
        text: ``jax.stages.Compiled.as_text()``.

    Returns:
        Empty where the text has no such tables.
    """
    tables: dict[str, dict[int, str]] = {name: {} for name in _SECTIONS}
    current: dict[int, str] | None = None
    for line in text.splitlines():
        if line in tables:
            current = tables[line]
        elif current is not None:
            number, _, rest = line.partition(" ")
            if number.isdecimal():
                current[int(number)] = rest
            elif line:
                break
    names = {key: _short(value.strip('"')) for key, value in tables["FileNames"].items()}
    written = {
        key: names.get(_number(value, "file_name_id"), "")
        for key, value in tables["FileLocations"].items()
    }
    frames = tables["StackFrames"]
    return {key: _own(key, frames, written) for key in frames}


def _own(frame: int, frames: Mapping[int, str], written: Mapping[int, str]) -> str:
    """Name of the innermost file of a stack that is no installed package's."""
    while frame in frames:
        name = written.get(_number(frames[frame], "file_location_id"), "")
        if name:
            return name
        # Numbers of parents are printed one too high: the outermost frame would be its own.
        frame = min(_number(frames[frame], "parent_frame_id") - 1, frame - 1)
    return ""


def _short(path: str) -> str:
    """``ops.matching.ssd`` of a path; "" for installed packages."""
    if re.search(r"/(site|dist)-packages/(?!jdet/)|/lib/python\d", path):
        return ""
    inside = path.rpartition("/jdet/")[2] if "/jdet/" in path else path.rpartition("/")[2]
    return inside.removesuffix(".py").replace("/", ".")


def _number(text: str, key: str) -> int:
    found = re.search(rf"\b{key}=(\d+)", text)
    return int(found.group(1)) if found else 0
