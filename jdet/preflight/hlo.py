"""The text of a compiled program (XLA's HLO) as computations and instructions.

Only what the reports on communication and memory traffic need is read: shapes, operands, who calls
whom, and how often a loop runs.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+(\d*)\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
    r"|(?:branch_computations|called_computations)=\{([^}]*)\}"
)
HOST = 5
"""Memory space of the host."""

_CALLERS = {"while", "call", "conditional", "fusion", "async-start"}


class Array(NamedTuple):
    """One array of a shape, which may be a tuple of many.

    Attributes:
        dtype: XLA's name, such as "f32".
        bytes: without the padding of tiled layouts.
        space: memory space of the layout: 0 is the device's main memory, 5 (``HOST``) the host's. On
            TPUs 1 is the memory on the chip (VMEM).
    """

    dtype: str
    bytes: int
    space: int


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
        name: unique within the computation.
        opcode: such as "fusion".
        shape: of the result, as text.
        operands: names of instructions of the same computation; of a parameter its position.
        attributes: everything after the operands, as text.
        root: whether it is the computation's result.
    """

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @property
    def op_name(self) -> str:
        """Where in the traced program it comes from, such as ``jit(step)/…/conv1/norm/psum``."""
        found = _OP_NAME.search(self.attributes)
        return found.group(1) if found else ""

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that run as part of it; not those that combine two numbers."""
        if self.opcode not in _CALLERS:
            return ()
        names: list[str] = []
        for single, several in _CALLED.findall(self.attributes):
            names += [single] if single else [n.strip(" %") for n in several.split(",")]
        return tuple(names)

    @property
    def trips(self) -> int | None:
        """How often a loop runs its body; None where only the run can tell, 1 for everything else."""
        if self.opcode != "while":
            return 1
        found = _TRIPS.search(self.attributes)
        return int(found.group(1)) if found else None


class Module(NamedTuple):
    """A compiled program.

    Attributes:
        computations: instructions by computation, in the order of the text.
        entry: name of the computation that is the program.
        devices: how many run it together.
    """

    computations: dict[str, dict[str, Instruction]]
    entry: str
    devices: int

    def operand_shapes(self, computation: str, instruction: Instruction) -> list[str]:
        """Shapes of the operands, as text."""
        known = self.computations[computation]
        return [known[name].shape for name in instruction.operands if name in known]

    def runs(self, *, into_fusions: bool = True) -> dict[str, int]:
        """How often each computation runs in one call of the program.

        A loop whose length is not known at compile time counts as one round, and of a conditional every
        branch counts.

        Args:
            into_fusions: also what is fused into one instruction.
        """
        runs: dict[str, int] = defaultdict(int)
        for name, times in self._visits(self.entry, 1, into_fusions):
            runs[name] += times
        return dict(runs)

    def _visits(self, name: str, times: int, into_fusions: bool) -> Iterator[tuple[str, int]]:
        yield name, times
        for instruction in self.computations[name].values():
            if instruction.opcode == "fusion" and not into_fusions:
                continue
            for called in instruction.called:
                if called in self.computations:
                    rounds = times * (instruction.trips or 1)
                    yield from self._visits(called, rounds, into_fusions)


def parse(text: str) -> Module:
    """Reads ``jax.stages.Compiled.as_text()``.

    Raises:
        ValueError: the text holds no program.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if not line.startswith(" "):
            if found := _COMPUTATION.match(line):
                current = computations.setdefault(found.group(2), {})
                entry = found.group(2) if found.group(1) else entry
            continue
        found = _INSTRUCTION.match(line)
        if found and current is not None:
            root, name, shape, opcode, rest = found.groups()
            inside, attributes = _split_operands(rest)
            operands = () if opcode == "constant" else _operands(inside)
            current[name] = Instruction(name, opcode, shape, operands, attributes, bool(root))
    if not entry:
        raise ValueError("no ENTRY computation: this is not the text of a compiled program")
    header = text.split("\n", 1)[0]
    counts = [
        int(found.group(1))
        for key in ("num_partitions", "replica_count")
        if (found := re.search(rf"\b{key}=(\d+)", header))
    ]
    return Module(computations, entry, math.prod(counts))


def arrays(shape: str) -> list[Array]:
    """The arrays of a shape such as ``(f32[2,64]{1,0:T(8,128)S(1)}, u32[])``."""
    found = []
    for dtype, digits, dims, layout in _ARRAY.findall(shape):
        if dtype in ("token", "opaque"):
            continue
        bits = 8 if dtype == "pred" else int(digits or 0)
        count = math.prod(int(d.lstrip("<=")) for d in dims.split(",") if d)
        space = re.search(r"S\((\d+)\)", layout)
        found.append(Array(dtype, -(-count * bits // 8), int(space.group(1)) if space else 0))
    return found


def dims(shape: str) -> tuple[int, ...]:
    """Sides of the first array of a shape; empty for a single number."""
    found = _ARRAY.search(shape)
    return tuple(int(d.lstrip("<=")) for d in found.group(3).split(",") if d) if found else ()


def size(shape: str) -> int:
    """Bytes of a shape, in whatever memory."""
    return sum(array.bytes for array in arrays(shape))


def _split_operands(rest: str) -> tuple[str, str]:
    """Splits the text after an opening bracket at the closing one."""
    depth = 1
    for at, char in enumerate(rest):
        depth += (char == "(") - (char == ")")
        if not depth:
            return rest[:at], rest[at + 1 :]
    return rest, ""


def _operands(inside: str) -> tuple[str, ...]:
    """Names in ``%a, /*index=1*/%b`` and in ``f32[2]{0} %a, f32[2]{0} %b``."""
    inside = re.sub(r"/\*.*?\*/|\{[^}]*\}|\[[^\]]*\]", "", inside)
    pieces = (piece.split() for piece in inside.replace("(", "").replace(")", "").split(","))
    return tuple(words[-1].lstrip("%") for words in pieces if words)
