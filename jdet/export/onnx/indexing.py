"""Gathers, scatters, and slices whose places are known when the program runs.

All of them come down to rows of a table: the trailing axes that are taken whole make a row, the others are
counted through, and a place is its number. ONNX then gathers or scatters along one axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jdet.export.onnx.elementwise import simple
from jdet.export.onnx.graph import Graph, Shape, Value
from jdet.export.onnx.shaping import whole
from jdet.export.onnx.table import Equation, Unsupported, operation


class _Table(NamedTuple):
    """An operand as rows.

    Attributes:
        shape: of the operand.
        counted: how many leading axes number the rows.
    """

    shape: tuple[int, ...]
    counted: int

    @classmethod
    def of(cls, shape: Shape, sizes: Sequence[int]) -> _Table:
        """For windows of these sizes: trailing axes that they span are rows."""
        if not all(isinstance(side, int) for side in shape):
            raise Unsupported(f"indices into {shape}, whose sides are known when the program runs")
        counted = len(shape)
        while counted and sizes[counted - 1] == shape[counted - 1]:
            counted -= 1
        return cls(tuple(shape), counted)

    @property
    def rows(self) -> int:
        return math.prod(self.shape[: self.counted])

    @property
    def row(self) -> int:
        return math.prod(self.shape[self.counted :])

    @property
    def strides(self) -> list[int]:
        """Rows from one index of each counted axis to the next."""
        return [math.prod(self.shape[i + 1 : self.counted]) for i in range(self.counted)]

    def offsets(self, sizes: Sequence[int]) -> np.ndarray:
        """Numbers of the rows of a window at the origin, int64 [*sizes of the counted axes]."""
        total = np.zeros(sizes[: self.counted], np.int64)
        for axis, stride in enumerate(self.strides):
            sides = [1] * self.counted
            sides[axis] = sizes[axis]
            total = total + stride * np.arange(sizes[axis]).reshape(sides)
        return total


def _int64(graph: Graph, value: Value) -> Value:
    return graph.cast(value, "int64")


def _clamped(graph: Graph, value: Value, most: Any) -> Value:
    """Whole numbers brought into 0 … most."""
    zero = graph.constant(0, "int64")
    return simple(graph, "Min", simple(graph, "Max", value, zero), graph.constant(most, "int64"))


def _starts(
    graph: Graph, indices: Value, axes: Sequence[int], batch: Sequence[tuple[int, int]], rank: int
) -> list[Value | None]:
    """Where windows begin along each axis of the operand, int64 [n…]; None: at 0.

    Args:
        graph: to write to.
        indices: [n…, len(axes)].
        axes: of the operand, to which the last axis of the indices belongs.
        batch: axis of the operand that is counted through together with an axis of the indices.
        rank: of the operand.
    """
    found: list[Value | None] = [None] * rank
    shape = tuple(indices.shape[:-1])
    for place, axis in enumerate(axes):
        if len(axes) == 1:
            found[axis] = graph.reshape(indices, shape)
        else:
            which = graph.constant(place, "int64")
            found[axis] = graph.emit("Gather", [indices, which], shape, "int64", axis=len(shape))
    for axis, along in batch:
        sides = [1] * len(shape)
        sides[along] = shape[along]
        found[axis] = Value.of(np.arange(shape[along], dtype=np.int64).reshape(sides))
    return found


def _numbers(
    graph: Graph, table: _Table, starts: Sequence[Value | None], sizes: Sequence[int], rank: int
) -> Value:
    """Row numbers of all windows, int64 [n…, *sizes of the counted axes]; ``rank`` is that of n…."""
    total = Value.of(table.offsets(sizes).reshape((1,) * rank + tuple(sizes[: table.counted])))
    for axis, stride in enumerate(table.strides):
        start = starts[axis]
        if start is None:
            continue
        start = graph.reshape(start, (*start.shape, *(1,) * table.counted))
        total = simple(
            graph, "Add", total, simple(graph, "Mul", start, graph.constant(stride, "int64"))
        )
    return total


def _inside(
    graph: Graph, starts: Sequence[Value | None], room: Sequence[int], axes: Sequence[int]
) -> Value:
    """Which windows lie in the operand, bool [n…]."""
    inside = Value.of(np.bool_(True))
    for axis in axes:
        start = starts[axis]
        assert start is not None
        low = simple(graph, "GreaterOrEqual", start, graph.constant(0, "int64"), dtype="bool")
        most = graph.constant(room[axis], "int64")
        high = simple(graph, "LessOrEqual", start, most, dtype="bool")
        inside = simple(graph, "And", inside, simple(graph, "And", low, high))
    return inside


def _mode(equation: Equation) -> str:
    return str(equation.params["mode"]).rpartition(".")[2].upper()


def _along_one_axis(graph: Graph, equation: Equation) -> Value | None:
    """A gather of whole slices along one axis, also of an operand with symbolic sides; else None."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    if len(numbers.start_index_map) != 1 or numbers.operand_batching_dims:
        return None
    (axis,), shape = numbers.start_index_map, equation.given[0]
    others = all(
        sizes[i] is shape[i] or sizes[i] == shape[i] for i in range(len(shape)) if i != axis
    )
    fill = _mode(equation) in ("FILL_OR_DROP", "ONE_HOT")
    if numbers.collapsed_slice_dims != (axis,) or not others or fill:
        return None
    indices = _int64(graph, whole(graph, equation, 1))
    rank = len(indices.shape) - 1
    at = [i for i in range(len(equation.shape)) if i not in numbers.offset_dims]
    if at != list(range(axis, axis + rank)):
        return None
    indices = graph.reshape(indices, indices.shape[:-1])
    if _mode(equation) == "CLIP":
        indices = _clamped(graph, indices, shape[axis] - 1)
    return graph.emit(
        "Gather", [equation.inputs[0], indices], equation.shape, equation.dtype, axis=axis
    )


@operation("gather")
def _gather(graph: Graph, equation: Equation) -> Value:
    if equation.inputs[0].shape == tuple(equation.given[0]):
        found = _along_one_axis(graph, equation)
        if found is not None:
            return found
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    operand, indices = whole(graph, equation), _int64(graph, whole(graph, equation, 1))
    table = _Table.of(operand.shape, sizes)
    rank = len(indices.shape) - 1
    pairs = list(
        zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    )
    starts = _starts(graph, indices, numbers.start_index_map, pairs, len(operand.shape))
    room = [side - size for side, size in zip(operand.shape, sizes, strict=True)]
    fill = _mode(equation) == "FILL_OR_DROP"
    inside = _inside(graph, starts, room, numbers.start_index_map) if fill else None
    if _mode(equation) != "PROMISE_IN_BOUNDS":
        for axis in numbers.start_index_map:
            start = starts[axis]
            assert start is not None
            starts[axis] = _clamped(graph, start, room[axis])
    number = _numbers(graph, table, starts, sizes, rank)
    batch = tuple(indices.shape[:-1])
    number = graph.full(number, (*batch, *sizes[: table.counted]))
    rows = graph.reshape(operand, (table.rows, table.row))
    found = graph.emit("Gather", [rows, number], (*number.shape, table.row), operand.dtype, axis=0)
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    window = tuple(size for axis, size in enumerate(sizes) if axis not in gone)
    found = graph.reshape(found, (*batch, *window))
    if inside is not None:
        value = equation.params["fill_value"]
        if value is None:
            kind = np.dtype(equation.dtype)
            value = {"f": np.nan, "b": True}.get(kind.kind)
            value = np.iinfo(kind).min if value is None else value
        inside = graph.reshape(inside, (*inside.shape, *(1,) * len(window)))
        found = _chosen(graph, inside, found, graph.constant(value, equation.dtype))
    order: list[int] = [0] * len(equation.shape)
    offsets, places = iter(range(rank, len(equation.shape))), iter(range(rank))
    for axis in range(len(equation.shape)):
        order[axis] = next(offsets) if axis in numbers.offset_dims else next(places)
    return graph.transpose(found, order)


def _chosen(graph: Graph, which: Value, one: Value, other: Value) -> Value:
    kept = one.dtype
    if kept in ("bool", "uint8", "uint16"):
        one, other = graph.cast(one, "int32"), graph.cast(other, "int32")
    return graph.cast(simple(graph, "Where", which, one, other), kept)


@operation("dynamic_slice")
def _dynamic_slice(graph: Graph, equation: Equation) -> Value:
    value, sizes = whole(graph, equation), equation.params["slice_sizes"]
    axes = [i for i, (size, side) in enumerate(zip(sizes, value.shape)) if size != side]
    if not axes:
        return value
    starts = _corner(graph, equation.inputs[1:], value.shape, sizes, axes)
    ends = simple(graph, "Add", starts, graph.constant([sizes[i] for i in axes], "int64"))
    along = graph.constant(axes, "int64")
    return graph.emit("Slice", [value, starts, ends, along], equation.shape, value.dtype)


def _corner(
    graph: Graph, starts: Sequence[Value], shape: Shape, sizes: Sequence[int], axes: Sequence[int]
) -> Value:
    """Where a window begins, brought inside, int64 [len(axes)]."""
    parts = [graph.reshape(_int64(graph, starts[i]), (1,)) for i in axes]
    corner = parts[0]
    if len(parts) > 1:
        corner = graph.emit("Concat", parts, (len(parts),), "int64", axis=0)
    return _clamped(graph, corner, [shape[i] - sizes[i] for i in axes])


@operation("dynamic_update_slice")
def _dynamic_update_slice(graph: Graph, equation: Equation) -> Value:
    value, update = whole(graph, equation), whole(graph, equation, 1)
    table = _Table.of(value.shape, update.shape)
    if not table.counted:
        return update
    rank = len(value.shape)
    corner = _corner(graph, equation.inputs[2:], value.shape, update.shape, range(rank))
    starts: list[Value | None] = [
        graph.emit("Gather", [corner, graph.constant(axis, "int64")], (), "int64", axis=0)
        for axis in range(rank)
    ]
    number = _numbers(graph, table, starts, update.shape, 0)
    return _scattered(graph, value, table, number, update, "none")


def _scattered(
    graph: Graph, value: Value, table: _Table, number: Value, update: Value, how: str
) -> Value:
    """Rows of a value replaced, added to or compared; a number beyond the last row is left out."""
    kept = value.dtype
    if kept == "bool":
        value, update = graph.cast(value, "int32"), graph.cast(update, "int32")
    count = math.prod(update.shape) // table.row
    rows = graph.reshape(value, (table.rows, table.row))
    spare = Value.of(np.zeros((1, table.row), value.dtype))
    wide = (table.rows + 1, table.row)
    rows = graph.emit("Concat", [rows, spare], wide, value.dtype, axis=0)
    number = graph.reshape(number, (count, 1))
    update = graph.reshape(update, (count, table.row))
    more = {} if how == "none" else {"reduction": how}
    found = graph.emit("ScatterND", [rows, number, update], wide, value.dtype, **more)
    bounds = [graph.constant([x], "int64") for x in (0, table.rows, 0)]
    found = graph.emit("Slice", [found, *bounds], (table.rows, table.row), value.dtype)
    return graph.cast(graph.reshape(found, table.shape), kept)


_HOW = {"scatter": "none", "scatter-add": "add", "scatter_add": "add", "scatter_max": "max"}


@operation(*_HOW, "scatter_min")
def _scatter(graph: Graph, equation: Equation) -> Value:
    numbers = equation.params["dimension_numbers"]
    value, update = whole(graph, equation), whole(graph, equation, 2)
    indices = _int64(graph, whole(graph, equation, 1))
    gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    window = iter(update.shape[axis] for axis in numbers.update_window_dims)
    sizes = [1 if axis in gone else next(window) for axis in range(len(value.shape))]
    table = _Table.of(value.shape, sizes)
    rank = len(indices.shape) - 1
    axes = numbers.scatter_dims_to_operand_dims
    pairs = list(
        zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True)
    )
    starts = _starts(graph, indices, axes, pairs, len(value.shape))
    room = [side - size for side, size in zip(value.shape, sizes, strict=True)]
    batch = tuple(indices.shape[:-1])
    inside = None
    if _mode(equation) == "CLIP":
        for axis in axes:
            start = starts[axis]
            assert start is not None
            starts[axis] = _clamped(graph, start, room[axis])
    else:
        inside = _inside(graph, starts, room, axes)
    number = graph.full(
        _numbers(graph, table, starts, sizes, rank), (*batch, *sizes[: table.counted])
    )
    if inside is not None:
        inside = graph.reshape(graph.full(inside, batch), (*batch, *(1,) * table.counted))
        number = simple(graph, "Where", inside, number, graph.constant(table.rows, "int64"))
    places = [axis for axis in range(len(update.shape)) if axis not in numbers.update_window_dims]
    update = graph.transpose(update, [*places, *numbers.update_window_dims])
    how = _HOW.get(equation.name, "min")
    return _scattered(graph, value, table, number, update, how)
