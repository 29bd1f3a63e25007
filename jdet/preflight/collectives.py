"""Data that a compiled program sends between devices, and to or from the host.

    report = collectives.find(compiled.as_text())
    for row in collectives.summarise(report):
        print(row)

XLA merges neighbouring collectives into one with many arrays and keeps the name of one of them; the
purpose of such a one is that of the name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from jdet.preflight import hlo

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)

_HOST_CALLS = re.compile(r'custom_call_target="([^"]*(?:callback|host)[^"]*)"', re.IGNORECASE)
_GROUPS = re.compile(r"replica_groups=(?:\[([\d,]+)\]<=|\{(.*?)\}(?:,|$)(?!\{))")
_MESH = re.compile(r"replica_groups=mesh\[(.*?)\] ?\{(.*?)\}")
_AXIS = re.compile(r"'([^']*)'(?::\(\d+\)|=)?(\d*)")
_PAIRS = re.compile(r"source_target_pairs=\{")


class Collective(NamedTuple):
    """One exchange between devices in the compiled program.

    Attributes:
        kind: one of ``KINDS``.
        purpose: "gradients", "loss", "statistics" (running ones), "batch norm forward", "batch norm
            backward", "batch norm recomputed", or what ``find`` was told to call others.
        bytes: of the whole array that a device of the group has before or after, whichever is larger.
        arrays: how many travel together.
        group_size: devices that exchange with one another.
        times: how often it runs in one step.
        op_name: where in the traced program it comes from.
    """

    kind: str
    purpose: str
    bytes: int
    arrays: int
    group_size: int
    times: int
    op_name: str


class Row(NamedTuple):
    """All collectives of one kind, purpose and group size.

    Attributes:
        kind: as in ``Collective``.
        purpose: as in ``Collective``.
        group_size: as in ``Collective``.
        count: exchanges in one step.
        bytes: sum over them.
        largest: bytes of the largest.
    """

    kind: str
    purpose: str
    group_size: int
    count: int
    bytes: int
    largest: int


def find(program: str | hlo.Module, other: str = "other") -> list[Collective]:
    """Every collective of a compiled program, in the order of its text.

    Groups of one device exchange nothing and are left out.

    Args:
        program: ``jax.stages.Compiled.as_text()``, or that parsed.
        other: purpose of what is none of a training step's.
    """
    module = hlo.parse(program) if isinstance(program, str) else program
    runs = module.runs()
    found = []
    for name, instructions in module.computations.items():
        for instruction in instructions.values():
            kind = instruction.opcode.removesuffix("-start")
            if kind not in KINDS or not runs.get(name):
                continue
            group_size = group_of(instruction.attributes, module.devices)
            if group_size == 1:
                continue
            shapes = module.operand_shapes(name, instruction)
            parts = [array for shape in shapes for array in hlo.arrays(shape)]
            gathered = group_size if kind == "all-gather" else 1
            found.append(
                Collective(
                    kind,
                    purpose(instruction.op_name) or other,
                    sum(part.bytes for part in parts) * gathered,
                    len(parts),
                    group_size,
                    runs[name],
                    instruction.op_name,
                )
            )
    return found


def purpose(op_name: str) -> str:
    """The purpose of a collective of a training step, by its place in the traced program; else ""."""
    parts = op_name.split("/")
    if any(part.endswith("norm") for part in parts):
        if "rematted_computation" in op_name:
            return "batch norm recomputed"
        return f"batch norm {'backward' if 'transpose(' in op_name else 'forward'}"
    for name in ("gradients", "loss", "statistics"):
        if any(part in (name, f"jvp({name})") for part in parts):
            return name
    return ""


def summarise(found: Iterable[Collective]) -> list[Row]:
    """Collectives added up per kind, purpose and group size; most bytes first."""
    rows: dict[tuple[str, str, int], list[int]] = {}
    for each in found:
        row = rows.setdefault((each.kind, each.purpose, each.group_size), [0, 0, 0])
        row[0] += each.times
        row[1] += each.times * each.bytes
        row[2] = max(row[2], each.bytes)
    return sorted((Row(*key, *row) for key, row in rows.items()), key=lambda row: -row.bytes)


def host_transfers(program: str | hlo.Module) -> list[str]:
    """Instructions that move data between device and host within the program, as short texts."""
    module = hlo.parse(program) if isinstance(program, str) else program
    runs = module.runs()
    found = []
    for name, instructions in module.computations.items():
        if not runs.get(name):
            continue
        for instruction in instructions.values():
            kind = instruction.opcode.removesuffix("-start")
            called = kind == "custom-call" and _HOST_CALLS.search(instruction.attributes)
            # Send and receive also serve devices among themselves.
            asked = kind in ("infeed", "outfeed") or (
                kind in ("send", "recv") and "is_host_transfer=true" in instruction.attributes
            )
            copied = kind in ("copy", "dynamic-update-slice") and any(
                array.space == hlo.HOST for array in hlo.arrays(instruction.shape)
            )
            if called or copied or asked:
                target = f" {called.group(1)}" if called else ""
                found.append(f"{instruction.opcode}{target} {instruction.op_name}".rstrip())
    return found


def group_of(attributes: str, devices: int) -> int:
    """Devices per group: ``{{0,1},{2,3}}``, ``[2,2]<=[4]``, ``{}`` for all, or pairs.

    Since jaxlib 0.12 also ``mesh['a'=2,'b'=4] {'b'}``, or ``{'b':(1)2}`` for a part of an axis.
    """
    if _PAIRS.search(attributes):
        return 2
    if over := _MESH.search(attributes):
        sizes, axes = (_AXIS.findall(part) for part in over.groups())
        return math.prod(int(part or dict(sizes)[name]) for name, part in axes)
    found = _GROUPS.search(attributes)
    if not found:
        return devices
    tiled, listed = found.groups()
    if tiled:
        _, *members = map(int, tiled.split(","))
        return math.prod(members)
    first = (listed or "").strip("{").split("}")[0]
    return len(first.split(",")) if first else devices
