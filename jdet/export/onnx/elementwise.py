"""Operations on values one by one, and over axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jdet.export.onnx.graph import Graph, Shape, Value
from jdet.export.onnx.table import Equation, Unsupported, operation


def together(*shapes: Shape) -> Shape:
    """The shape of values that broadcast against each other."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(
        next((side for side in sides if not (isinstance(side, int) and side == 1)), 1)
        for sides in zip(*padded, strict=True)
    )


def simple(graph: Graph, kind: str, *values: Value, dtype: str = "", **attributes: Any) -> Value:
    """A node of one operation whose inputs broadcast; its type is that of the last, or ``dtype``."""
    shape = together(*(value.shape for value in values))
    return graph.emit(kind, values, shape, dtype or values[-1].dtype, **attributes)


def as_number(graph: Graph, value: Value) -> Value:
    """A value in a type with which ONNX Runtime calculates everywhere: int32 for what is narrower."""
    narrow = value.dtype in ("bool", "uint8", "int8", "uint16", "int16")
    return graph.cast(value, "int32") if narrow else value


_SAME = {
    "add": "Add",
    "add_any": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "neg": "Neg",
    "abs": "Abs",
    "sign": "Sign",
    "floor": "Floor",
    "ceil": "Ceil",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
    "erf": "Erf",
    "sin": "Sin",
    "cos": "Cos",
    "logistic": "Sigmoid",
    "pow": "Pow",
}

_LOGIC = {"and": "And", "or": "Or", "xor": "Xor", "not": "Not"}

_COMPARED = {
    "eq": "Equal",
    "lt": "Less",
    "gt": "Greater",
    "le": "LessOrEqual",
    "ge": "GreaterOrEqual",
}


def _arithmetic(kind: str) -> Callable[[Graph, Equation], Value]:
    def convert(graph: Graph, equation: Equation) -> Value:
        values = [as_number(graph, value) for value in equation.inputs]
        return graph.cast(simple(graph, kind, *values), equation.dtype)

    return convert


def _logic(kind: str) -> Callable[[Graph, Equation], Value]:
    def convert(graph: Graph, equation: Equation) -> Value:
        if any(value.dtype != "bool" for value in equation.inputs):
            raise Unsupported(f"{equation.name} of the bits of {equation.inputs[0].dtype}")
        return simple(graph, kind, *equation.inputs)

    return convert


def _compared(kind: str) -> Callable[[Graph, Equation], Value]:
    def convert(graph: Graph, equation: Equation) -> Value:
        values = [as_number(graph, value) for value in equation.inputs]
        return simple(graph, kind, *values, dtype="bool")

    return convert


for _name, _kind in _SAME.items():
    operation(_name)(_arithmetic(_kind))
for _name, _kind in _LOGIC.items():
    operation(_name)(_logic(_kind))
for _name, _kind in _COMPARED.items():
    operation(_name)(_compared(_kind))


@operation("ne")
def _ne(graph: Graph, equation: Equation) -> Value:
    return simple(graph, "Not", _compared("Equal")(graph, equation))


@operation("rem")
def _rem(graph: Graph, equation: Equation) -> Value:
    """The sign of the dividend, as C has it."""
    return simple(graph, "Mod", *equation.inputs, fmod=1)


@operation("rsqrt")
def _rsqrt(graph: Graph, equation: Equation) -> Value:
    return simple(graph, "Reciprocal", simple(graph, "Sqrt", *equation.inputs))


@operation("square")
def _square(graph: Graph, equation: Equation) -> Value:
    (value,) = equation.inputs
    return simple(graph, "Mul", value, value)


@operation("integer_pow")
def _integer_pow(graph: Graph, equation: Equation) -> Value:
    (value,) = equation.inputs
    power = equation.params["y"]
    product = value
    for _ in range(abs(power) - 1):
        product = simple(graph, "Mul", product, value)
    if not power:
        raise Unsupported("a power of 0")
    return product if power > 0 else simple(graph, "Reciprocal", product)


@operation("log1p")
def _log1p(graph: Graph, equation: Equation) -> Value:
    one = graph.constant(1, equation.dtype)
    return simple(graph, "Log", simple(graph, "Add", *equation.inputs, one))


@operation("erfc")
def _erfc(graph: Graph, equation: Equation) -> Value:
    one = graph.constant(1, equation.dtype)
    return simple(graph, "Sub", one, simple(graph, "Erf", *equation.inputs))


@operation("is_finite")
def _is_finite(graph: Graph, equation: Equation) -> Value:
    largest = graph.constant(np.finfo(np.float32).max, "float32")
    return simple(
        graph, "LessOrEqual", simple(graph, "Abs", *equation.inputs), largest, dtype="bool"
    )


@operation("round")
def _round(graph: Graph, equation: Equation) -> Value:
    if int(equation.params["rounding_method"]) != 1:
        raise Unsupported("rounding of halves away from zero")
    return simple(graph, "Round", *equation.inputs)


@operation("clamp")
def _clamp(graph: Graph, equation: Equation) -> Value:
    low, value, high = equation.inputs
    return simple(graph, "Min", simple(graph, "Max", low, value), high)


@operation("convert_element_type")
def _convert(graph: Graph, equation: Equation) -> Value:
    (value,) = equation.inputs
    if value.dtype == "float32" and equation.dtype in (
        "uint8",
        "uint16",
    ):  # negative ones wrap there
        value = graph.cast(value, "int32")
    return graph.cast(value, equation.dtype)


@operation("stop_gradient", "copy", "copy_p", "pvary", "optimization_barrier")
def _same(graph: Graph, equation: Equation) -> Value:
    del graph
    if len(equation.inputs) != 1:
        raise Unsupported(f"{equation.name} of several values")
    return equation.inputs[0]


@operation("select_n")
def _select(graph: Graph, equation: Equation) -> Value:
    which, *cases = equation.inputs
    kept = cases[0].dtype
    cases = [as_number(graph, case) for case in cases]
    if which.dtype != "bool" and len(cases) == 2:
        which = graph.cast(which, "bool")
    if which.dtype == "bool":
        return graph.cast(simple(graph, "Where", which, cases[1], cases[0]), kept)
    found = cases[0]
    for number, case in enumerate(cases[1:], 1):
        same = simple(graph, "Equal", which, graph.constant(number, which.dtype), dtype="bool")
        found = simple(graph, "Where", same, case, found)
    return graph.cast(found, kept)


def _reduced(kind: str) -> Callable[[Graph, Equation], Value]:
    def convert(graph: Graph, equation: Equation) -> Value:
        value = as_number(graph, graph.full(equation.inputs[0], equation.given[0]))
        axes = equation.params["axes"]
        if not axes:
            return graph.cast(value, equation.dtype)
        along = graph.constant(axes, "int64")
        found = graph.emit(kind, [value, along], equation.shape, value.dtype, keepdims=0)
        return graph.cast(found, equation.dtype)

    return convert


for _name, _kind in {
    "reduce_sum": "ReduceSum",
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
    "reduce_or": "ReduceMax",
    "reduce_and": "ReduceMin",
}.items():
    operation(_name)(_reduced(_kind))


def _first_of(kind: str) -> Callable[[Graph, Equation], Value]:
    def convert(graph: Graph, equation: Equation) -> Value:
        value = as_number(graph, graph.full(equation.inputs[0], equation.given[0]))
        (axis,) = equation.params["axes"]
        found = graph.emit(kind, [value], equation.shape, "int64", axis=axis, keepdims=0)
        return graph.cast(found, equation.dtype)

    return convert


operation("argmax")(_first_of("ArgMax"))
operation("argmin")(_first_of("ArgMin"))


@operation("cumsum")
def _cumsum(graph: Graph, equation: Equation) -> Value:
    value = as_number(graph, graph.full(equation.inputs[0], equation.given[0]))
    axis = graph.constant(equation.params["axis"], "int64")
    reverse = int(equation.params["reverse"])
    found = graph.emit("CumSum", [value, axis], equation.shape, value.dtype, reverse=reverse)
    return graph.cast(found, equation.dtype)


@operation("cummax")
def _cummax(graph: Graph, equation: Equation) -> Value:
    """In steps of doubled length: after step k a place has the largest of 2^k."""
    value = graph.full(equation.inputs[0], equation.given[0])
    axis, reverse = equation.params["axis"], equation.params["reverse"]
    length, done = equation.shape[axis], 1
    lowest = Value.of(np.array(-np.inf, np.float32))
    while done < length:
        pads = [0] * (2 * len(equation.shape))
        pads[axis + (len(equation.shape) if reverse else 0)] = done
        wide = list(equation.shape)
        wide[axis] = length + done
        moved = graph.emit(
            "Pad", [value, graph.constant(pads, "int64"), lowest], tuple(wide), value.dtype
        )
        start = done if reverse else 0
        bounds = [graph.constant([x], "int64") for x in (start, start + length, axis)]
        moved = graph.emit("Slice", [moved, *bounds], equation.shape, value.dtype)
        value = simple(graph, "Max", value, moved)
        done *= 2
    return value


@operation("top_k")
def _top_k(graph: Graph, equation: Equation) -> Sequence[Value]:
    value = graph.full(equation.inputs[0], equation.given[0])
    count = graph.constant([equation.params["k"]], "int64")
    best, index = graph.emit_many(
        "TopK", [value, count], [(equation.shape, value.dtype), (equation.shape, "int64")]
    )
    return best, graph.cast(index, "int32")


@operation("sort")
def _sort(graph: Graph, equation: Equation) -> Sequence[Value]:
    """By the first operand, ascending; equal ones in the order in which they stand."""
    if equation.params["num_keys"] != 1:
        raise Unsupported("a sort by several keys")
    axis = equation.params["dimension"]
    values = [graph.full(x, given) for x, given in zip(equation.inputs, equation.given)]
    key = as_number(graph, values[0])
    length = graph.constant([equation.shape[axis]], "int64")
    ordered, index = graph.emit_many(
        "TopK",
        [key, length],
        [(equation.shape, key.dtype), (equation.shape, "int64")],
        axis=axis,
        largest=0,
    )
    others = [
        graph.emit("GatherElements", [value, index], equation.shape, value.dtype, axis=axis)
        for value in values[1:]
    ]
    return [graph.cast(ordered, values[0].dtype), *others]
