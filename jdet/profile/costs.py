"""The instructions of a compiled program with what each of them costs and where it comes from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from jdet.preflight import collectives, hlo, roofline, traffic
from jdet.profile import flops as flops_lib
from jdet.profile import places

KINDS = (
    "convolution",
    "product",
    "sort",
    "gather/scatter",
    "reduction",
    "random numbers",
    "element-wise",
    "copy/transposition",
    "collective",
    "loop",
    "other",
)
"""Kinds of operations. A fusion is of the first kind, in this order, that anything in it is of."""

_OPCODES = {
    "sort": "sort",
    "topk": "sort",
    "gather": "gather/scatter",
    "scatter": "gather/scatter",
    "reduce": "reduction",
    "reduce-window": "reduction",
    "select-and-scatter": "reduction",
    "rng": "random numbers",
    "rng-bit-generator": "random numbers",
    "while": "loop",
    "conditional": "loop",
    "call": "loop",
    "custom-call": "other",
    **dict.fromkeys(
        "copy transpose reshape bitcast broadcast iota concatenate pad slice dynamic-slice reverse "
        "dynamic-update-slice constant parameter tuple get-tuple-element bitcast-convert".split(),
        "copy/transposition",
    ),
    **dict.fromkeys(collectives.KINDS, "collective"),
}
_HOPS = 6
"""How far to look for a neighbour that says where an instruction without metadata comes from."""


class Part(NamedTuple):
    """One instruction of a compiled program, with all that is fused into it.

    Attributes:
        name: by which traces know it.
        kind: one of ``KINDS``.
        module: see ``places.Place``.
        phase: see ``places.Place``.
        times: how often one call of the program runs it; loops of unknown length count once.
        flops: operations of convolutions and products of matrices, of all times together.
        bytes: moved between the device and its main memory, of all times together.
        sent: bytes that leave the device for others, of all times together.
    """

    name: str
    kind: str
    module: str
    phase: str
    times: int
    flops: float
    bytes: int
    sent: float


def parts(text: str) -> list[Part]:
    """What a program runs, in the order of its text.

    Args:
        text: ``jax.stages.Compiled.as_text()``.

    Raises:
        ValueError: the text holds no program.
    """
    module, files = hlo.parse(text), places.files(text)
    found = []
    for name, times in module.runs(into_fusions=False).items():
        users = _users(module, name)
        for instruction in module.computations[name].values():
            if instruction.opcode in traffic.NOTHING:
                continue
            where = _place(module, name, instruction, users, files)
            found.append(
                Part(
                    instruction.name,
                    kind(module, instruction),
                    where.module,
                    where.phase,
                    times,
                    times * flops_lib.flops(module, name, instruction),
                    times * traffic.instruction_bytes(module, name, instruction),
                    times * _sent(module, name, instruction),
                )
            )
    return found


def kind(module: hlo.Module, instruction: hlo.Instruction) -> str:
    """Kind of an instruction, one of ``KINDS``."""
    kinds = {_kind(each) for each in _inside(module, instruction)}
    return next(kind for kind in KINDS if kind in kinds)


def _kind(instruction: hlo.Instruction) -> str:
    if flops_lib.is_convolution(instruction):
        return "convolution"
    if flops_lib.is_product(instruction):
        return "product"
    opcode = instruction.opcode.removesuffix("-start").removesuffix("-done")
    if "topk" in flops_lib.target(instruction).lower():
        return "sort"
    return _OPCODES.get(opcode, "element-wise")


def _inside(module: hlo.Module, instruction: hlo.Instruction) -> Iterator[hlo.Instruction]:
    """The instruction, or of a fusion or an asynchronous one what it consists of."""
    called = [name for name in instruction.called if name in module.computations]
    if instruction.opcode in ("fusion", "async-start") and called:
        for name in called:
            for each in module.computations[name].values():
                yield from _inside(module, each)
    else:
        yield instruction


def _sent(module: hlo.Module, name: str, instruction: hlo.Instruction) -> float:
    """Bytes that a collective sends: (n - 1) / n of its array, twice for an all-reduce."""
    opcode = instruction.opcode.removesuffix("-start")
    if opcode not in collectives.KINDS:
        return 0.0
    devices = collectives.group_of(instruction.attributes, module.devices)
    size = sum(hlo.size(shape) for shape in module.operand_shapes(name, instruction))
    size *= devices if opcode == "all-gather" else 1
    return roofline.PASSES.get(opcode, 1) * size * (devices - 1) / devices


def _users(module: hlo.Module, name: str) -> dict[str, list[str]]:
    users: dict[str, list[str]] = defaultdict(list)
    for instruction in module.computations[name].values():
        for operand in instruction.operands:
            users[operand].append(instruction.name)
    return users


def _place(module, name, instruction, users, files) -> places.Place:
    """Place of an instruction: its own, else that of the nearest user or operand that has one.

    A fused convolution or product counts where that comes from: what ends the fusion may be the
    activation of the next module.
    """
    known = module.computations[name]
    frontier, seen = [instruction.name], {instruction.name}
    for _ in range(_HOPS):
        for each in frontier:
            if (source := _named(module, known[each])) is not None:
                file = files.get(places.frame_of(source.attributes), "")
                return places.place(source.op_name, file)
        following = [user for each in frontier for user in users[each]]
        following += [operand for each in frontier for operand in known[each].operands]
        frontier = [each for each in dict.fromkeys(following) if each in known and each not in seen]
        seen.update(frontier)
    return places.Place("", "forward")


def _named(module: hlo.Module, instruction: hlo.Instruction) -> hlo.Instruction | None:
    """The instruction with the ``op_name`` that counts for this one; None where there is none.

    Parameters have the names of arguments, which are no places.
    """
    if instruction.opcode in ("parameter", "get-tuple-element", "tuple", "constant"):
        return None
    inner = [each for each in _inside(module, instruction) if each.op_name]
    heavy = [e for e in inner if flops_lib.is_convolution(e) or flops_lib.is_product(e)]
    own = [instruction] if instruction.op_name else []
    ordered = [*heavy, *own, *(each for each in inner if each.opcode != "parameter")]
    return ordered[0] if ordered else None
