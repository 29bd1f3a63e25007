"""Bytes that a compiled program moves between a device and its main memory."""

from __future__ import annotations

from jdet.preflight import hlo

NOTHING = {
    "parameter",
    "constant",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "after-all",
    "opt-barrier",
    "partition-id",
    "replica-id",
}
"""Instructions that compute and move nothing."""

_FREE = NOTHING | {
    "while",  # what they run is counted, not what they pass on
    "conditional",
    "call",
    "async-start",
}
_PARTS = {"slice", "dynamic-slice", "gather"}


def memory_bytes(module: hlo.Module) -> int:
    """Bytes read from and written to main memory in one call of the program.

    Every instruction reads its operands and writes its result, a fused one as a whole; of an operand
    that is only sliced, the slices count. What the layout keeps on the chip (VMEM of TPUs) costs
    nothing, the padding of tiled layouts is left out, loops of known length count as often as they run.
    XLA's own figure (``cost_analysis()["bytes accessed"]``) counts every loop once and memory on the
    chip like any other.
    """
    total = 0
    for name, times in module.runs(into_fusions=False).items():
        for instruction in module.computations[name].values():
            total += times * instruction_bytes(module, name, instruction)
    return total


def instruction_bytes(module: hlo.Module, computation: str, instruction: hlo.Instruction) -> int:
    """What one instruction of a computation moves each time it runs."""
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done") or "Bitcast" in instruction.attributes[:80]:
        return 0
    if opcode in ("copy-start", "slice-start"):
        one, other = hlo.arrays(instruction.shape)[:2]
        return min(one.bytes, other.bytes) * ((one.space == 0) + (other.space == 0))
    operands = [module.computations[computation].get(operand) for operand in instruction.operands]
    if opcode in _PARTS:
        read = _main(instruction.shape) if operands[0] and _main(operands[0].shape) else 0
        return read + _main(instruction.shape)
    if opcode == "dynamic-update-slice":
        return 2 * _main(operands[1].shape) if operands[1] else 0
    if opcode == "fusion" and instruction.called:
        return _fusion(module.computations[instruction.called[0]], instruction, operands)
    return _main(instruction.shape) + sum(_main(each.shape) for each in operands if each)


def _fusion(inside: dict[str, hlo.Instruction], instruction: hlo.Instruction, operands) -> int:
    written = _main(instruction.shape)
    updated = None
    for each in inside.values():
        # An update in place touches what is new, of the result and of what it starts from.
        if each.root and each.opcode == "dynamic-update-slice":
            updated, update = each.operands[:2]
            written = min(written, hlo.size(inside[update].shape)) if update in inside else written
    read = 0
    for parameter in (each for each in inside.values() if each.opcode == "parameter"):
        index = int(parameter.operands[0])
        outside = operands[index] if index < len(operands) else None
        if outside is None or parameter.name == updated:
            continue
        users = [each for each in inside.values() if parameter.name in each.operands]
        size = _main(outside.shape)
        sliced = (each.opcode in _PARTS and each.operands[0] == parameter.name for each in users)
        if users and all(sliced):
            size = min(size, sum(hlo.size(each.shape) for each in users))
        read += size
    return read + written


def _main(shape: str) -> int:
    """Bytes of those arrays of a shape that lie in main memory."""
    return sum(array.bytes for array in hlo.arrays(shape) if array.space == 0)
