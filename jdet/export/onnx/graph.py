"""An ONNX graph that grows node by node, and values that are constants as long as they can be."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jdet.export.onnx import proto

Shape = tuple[Any, ...]
"""Sides: numbers, or expressions of JAX where they are known when the program runs."""


class Value(NamedTuple):
    """A value of the program.

    Attributes:
        shape: its sides here; a side of 1 may stand for any, as in NumPy.
        dtype: name of its type.
        const: the value, where it is known; then ``name`` is "".
        name: of the output of a node.
    """

    shape: Shape
    dtype: str
    const: np.ndarray | None = None
    name: str = ""

    @classmethod
    def of(cls, const: Any) -> Value:
        """A constant."""
        array = np.asarray(const)
        return cls(array.shape, str(array.dtype), array)


class Graph:
    """A graph, or the body of a loop or branch, which sees the values of those around it.

    Attributes:
        nodes: encoded, in order.
        outermost: whether it is no body.
        precision: of convolutions and products with weights, ``jdet.export.onnx.precision.Precision``.
    """

    def __init__(self, parent: Graph | None = None, precision: Any = None):
        """Starts empty; constants stand in the outermost graph, each once."""
        self.nodes: list[bytes] = []
        self.outermost = parent is None
        self.precision: Any = parent.precision if parent else precision
        self._root = parent._root if parent else self
        self._tensors: dict[str, bytes] = {}
        self._names = itertools.count()

    def inner(self) -> Graph:
        """The body of a loop or branch in this graph."""
        return Graph(self)

    def fresh(self) -> str:
        """A name that no other value has."""
        return f"v{next(self._root._names)}"

    def name(self, value: Value) -> str:
        """The name of a value; a constant becomes a tensor of the file."""
        return value.name if value.const is None else self.tensor(value.const)

    def tensor(self, array: np.ndarray, name: str = "") -> str:
        """The name of a constant, the same for equal ones without a name of their own."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = f"{array.dtype}{array.shape}".encode() + array.tobytes()
        name = name or f"c{hashlib.blake2b(key, digest_size=12).hexdigest()}"
        if name not in self._root._tensors:
            self._root._tensors[name] = proto.tensor(name, array)
        return name

    def emit(
        self,
        kind: str,
        inputs: Sequence[Value | None],
        shape: Shape,
        dtype: str,
        **attributes: Any,
    ) -> Value:
        """Adds a node with one output."""
        (out,) = self.emit_many(kind, inputs, [(shape, dtype)], **attributes)
        return out

    def emit_many(
        self,
        kind: str,
        inputs: Sequence[Value | None],
        outputs: Sequence[tuple[Shape, str]],
        **attributes: Any,
    ) -> list[Value]:
        """Adds a node; an input of None is left out."""
        names = [self.fresh() for _ in outputs]
        given = ["" if each is None else self.name(each) for each in inputs]
        self.nodes.append(proto.node(kind, given, names, attributes))
        return [
            Value(tuple(shape), dtype, name=name)
            for (shape, dtype), name in zip(outputs, names, strict=True)
        ]

    def encoded(
        self,
        name: str,
        inputs: Sequence[tuple[str, str, Any]],
        outputs: Sequence[tuple[str, str, Any]],
    ) -> proto.Graph:
        """The graph with inputs and outputs as (name, type, shape or None)."""
        told = [[proto.value(*each) for each in values] for values in (inputs, outputs)]
        return proto.graph(name, self.nodes, *told, tensors=list(self._tensors.values()))

    def constant(self, values: Any, dtype: str) -> Value:
        """A constant of a type."""
        return Value.of(np.asarray(values, dtype))

    def cast(self, value: Value, dtype: str) -> Value:
        """A value in another type."""
        if value.dtype == dtype:
            return value
        if value.const is not None:
            return Value.of(value.const.astype(dtype))
        return self.emit("Cast", [value], value.shape, dtype, to=proto.TYPES[dtype])

    def reshape(self, value: Value, shape: Shape) -> Value:
        """A value in another shape of numbers."""
        if value.shape == tuple(shape):
            return value
        if value.const is not None:
            return Value.of(value.const.reshape(shape))
        sides = self.constant(shape, "int64")
        return self.emit("Reshape", [value, sides], shape, value.dtype, allowzero=1)

    def full(self, value: Value, shape: Shape) -> Value:
        """A value in the whole of its shape, where sides of 1 stood for others."""
        if value.shape == tuple(shape):
            return value
        if value.const is not None:
            return Value.of(np.broadcast_to(value.const, shape))
        return self.emit("Expand", [value, self.constant(shape, "int64")], shape, value.dtype)

    def transpose(self, value: Value, order: Sequence[int]) -> Value:
        """A value with its axes in another order."""
        if list(order) == list(range(len(order))):
            return value
        if value.const is not None:
            return Value.of(value.const.transpose(order))
        shape = tuple(value.shape[axis] for axis in order)
        return self.emit("Transpose", [value], shape, value.dtype, perm=list(order))
