"""Which function writes which operation of JAX, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jdet.export.onnx.graph import Graph, Shape, Value


class Unsupported(Exception):
    """An operation that no function here writes; the text says which."""


class Equation(NamedTuple):
    """An operation of a jaxpr and its inputs.

    Attributes:
        name: of the operation.
        inputs: values; their shapes may have 1 where ``given`` has more.
        given: shapes of the inputs, as JAX has them.
        params: static parameters.
        shapes: of the outputs.
        dtypes: of the outputs.
    """

    name: str
    inputs: Sequence[Value]
    given: Sequence[Shape]
    params: Mapping[str, Any]
    shapes: Sequence[Shape]
    dtypes: Sequence[str]

    @property
    def shape(self) -> Shape:
        """Of the first output."""
        return self.shapes[0]

    @property
    def dtype(self) -> str:
        """Of the first output."""
        return self.dtypes[0]


Written = Value | Sequence[Value]
OPERATIONS: dict[str, Callable[[Graph, Equation], Written]] = {}


def operation(*names: str) -> Callable[[Any], Any]:
    """Enters a function into the table."""

    def enter(function: Callable[[Graph, Equation], Written]) -> Any:
        OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return enter
