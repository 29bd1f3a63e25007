"""Operations that move values, convolutions and products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jdet.export.onnx.elementwise import as_number
from jdet.export.onnx.graph import Graph, Shape, Value
from jdet.export.onnx.precision import product
from jdet.export.onnx.table import Equation, Unsupported, operation


def whole(graph: Graph, equation: Equation, place: int = 0) -> Value:
    """An input in the whole of its shape."""
    return graph.full(equation.inputs[place], equation.given[place])


@operation("broadcast_in_dim")
def _broadcast(graph: Graph, equation: Equation) -> Value:
    """Only axes of 1 are put in: what takes the value broadcasts it, or makes it whole."""
    value = equation.inputs[0]
    sides: list[Any] = [1] * len(equation.shape)
    for axis, place in enumerate(equation.params["broadcast_dimensions"]):
        sides[place] = value.shape[axis]
    return graph.reshape(value, tuple(sides))


@operation("reshape", "squeeze", "expand_dims")
def _reshape(graph: Graph, equation: Equation) -> Value:
    value = equation.inputs[0]
    if math.prod(value.shape) == 1:
        return graph.reshape(value, (1,) * len(equation.shape))
    return graph.reshape(whole(graph, equation), equation.shape)


@operation("transpose")
def _transpose(graph: Graph, equation: Equation) -> Value:
    return graph.transpose(equation.inputs[0], equation.params["permutation"])


@operation("concatenate")
def _concatenate(graph: Graph, equation: Equation) -> Value:
    values = [whole(graph, equation, i) for i in range(len(equation.inputs))]
    axis = equation.params["dimension"]
    return graph.emit("Concat", values, equation.shape, equation.dtype, axis=axis)


@operation("stack")
def _stack(graph: Graph, equation: Equation) -> Value:
    axis = equation.params["axis"]
    rows = [whole(graph, equation, i) for i in range(len(equation.inputs))]
    rows = [graph.reshape(row, (*row.shape[:axis], 1, *row.shape[axis:])) for row in rows]
    return graph.emit("Concat", rows, equation.shape, equation.dtype, axis=axis)


def sliced(
    graph: Graph,
    value: Value,
    starts: Sequence[int],
    limits: Sequence[int],
    strides: Sequence[int],
) -> Value:
    """A part of a value."""
    parts = zip(starts, limits, strides, value.shape, strict=True)
    axes = [i for i, (a, b, c, side) in enumerate(parts) if (a, b, c) != (0, side, 1)]
    if not axes:
        return value
    if value.const is not None:
        cut = tuple(slice(*each) for each in zip(starts, limits, strides, strict=True))
        return Value.of(value.const[cut])
    shape = tuple(-((a - b) // c) for a, b, c in zip(starts, limits, strides, strict=True))
    bounds = [[each[i] for i in axes] for each in (starts, limits)]
    steps = [strides[i] for i in axes]
    told = [graph.constant(each, "int64") for each in (*bounds, axes, steps)]
    return graph.emit("Slice", [value, *told], shape, value.dtype)


@operation("slice")
def _slice(graph: Graph, equation: Equation) -> Value:
    params, value = equation.params, whole(graph, equation)
    strides = params["strides"] or (1,) * len(value.shape)
    return sliced(graph, value, params["start_indices"], params["limit_indices"], strides)


@operation("split")
def _split(graph: Graph, equation: Equation) -> Sequence[Value]:
    value, axis = whole(graph, equation), equation.params["axis"]
    first, parts = 0, []
    for size in equation.params["sizes"]:
        starts, limits = [0] * len(value.shape), list(value.shape)
        starts[axis], limits[axis] = first, first + size
        parts.append(sliced(graph, value, starts, limits, [1] * len(value.shape)))
        first += size
    return parts


@operation("unstack")
def _unstack(graph: Graph, equation: Equation) -> Sequence[Value]:
    value, axis = whole(graph, equation), equation.params["axis"]
    rows = []
    for number, shape in enumerate(equation.shapes):
        starts, limits = [0] * len(value.shape), list(value.shape)
        starts[axis], limits[axis] = number, number + 1
        row = sliced(graph, value, starts, limits, [1] * len(value.shape))
        rows.append(graph.reshape(row, shape))
    return rows


@operation("rev")
def _reverse(graph: Graph, equation: Equation) -> Value:
    value, axes = whole(graph, equation), equation.params["dimensions"]
    count = len(axes)
    lowest = np.iinfo(np.int64).min
    told = [
        graph.constant(x, "int64") for x in ([-1] * count, [lowest] * count, axes, [-1] * count)
    ]
    return graph.emit("Slice", [value, *told], equation.shape, value.dtype)


def padded(graph: Graph, value: Value, pads: Sequence[tuple[int, int]], fill: Value) -> Value:
    """A value with more around it, or less where a number is negative."""
    if any(low < 0 or high < 0 for low, high in pads):
        starts = [max(-low, 0) for low, _ in pads]
        limits = [side - max(-high, 0) for side, (_, high) in zip(value.shape, pads, strict=True)]
        value = sliced(graph, value, starts, limits, [1] * len(pads))
        pads = [(max(low, 0), max(high, 0)) for low, high in pads]
    if not any(map(any, pads)):
        return value
    kept = value.dtype
    value, fill = as_number(graph, value), as_number(graph, fill)
    shape = tuple(a + side + b for side, (a, b) in zip(value.shape, pads, strict=True))
    ends = graph.constant([a for a, _ in pads] + [b for _, b in pads], "int64")
    return graph.cast(graph.emit("Pad", [value, ends, fill], shape, value.dtype), kept)


@operation("pad")
def _pad(graph: Graph, equation: Equation) -> Value:
    config = equation.params["padding_config"]
    if any(inner for _, _, inner in config):
        raise Unsupported("padding between values")
    fill = graph.reshape(equation.inputs[1], ())
    return padded(graph, whole(graph, equation), [(a, b) for a, b, _ in config], fill)


@operation("iota")
def _iota(graph: Graph, equation: Equation) -> Value:
    del graph
    axis = equation.params["dimension"]
    sides = [1] * len(equation.shape)
    sides[axis] = equation.shape[axis]
    return Value.of(np.arange(sides[axis]).astype(equation.dtype).reshape(sides))


@operation("conv_general_dilated")
def _conv(graph: Graph, equation: Equation) -> Value:
    params = equation.params
    lhs, rhs, out = (
        params["dimension_numbers"].lhs_spec,
        params["dimension_numbers"].rhs_spec,
        params["dimension_numbers"].out_spec,
    )
    if any(step != 1 for step in params["lhs_dilation"]) or params["batch_group_count"] != 1:
        raise Unsupported("a transposed convolution")
    if equation.dtype != "float32":
        raise Unsupported(f"a convolution of {equation.dtype}")
    image = graph.transpose(whole(graph, equation), lhs)
    kernel = graph.transpose(whole(graph, equation, 1), rhs)
    pads = params["padding"]
    if any(low < 0 or high < 0 for low, high in pads):
        fill = graph.constant(0, image.dtype)
        image = padded(graph, image, [(0, 0), (0, 0), *pads], fill)
        pads = [(0, 0)] * len(pads)
    shape = tuple(equation.shape[axis] for axis in out)
    found = product(
        graph,
        "Conv",
        image,
        kernel,
        shape,
        strides=list(params["window_strides"]),
        pads=[low for low, _ in pads] + [high for _, high in pads],
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
        kernel_shape=list(kernel.shape[2:]),
    )
    return graph.transpose(found, np.argsort(out).tolist())


@operation("dot_general")
def _dot(graph: Graph, equation: Equation) -> Value:
    (left_sum, right_sum), (left_batch, right_batch) = equation.params["dimension_numbers"]
    left, right = whole(graph, equation), whole(graph, equation, 1)
    left_free = [i for i in range(len(left.shape)) if i not in (*left_sum, *left_batch)]
    right_free = [i for i in range(len(right.shape)) if i not in (*right_sum, *right_batch)]
    batch = [left.shape[i] for i in left_batch]
    rows, columns = [left.shape[i] for i in left_free], [right.shape[i] for i in right_free]
    inner = math.prod(left.shape[i] for i in left_sum)
    left = graph.transpose(left, [*left_batch, *left_free, *left_sum])
    left = graph.reshape(left, (*batch, math.prod(rows), inner))
    right = graph.transpose(right, [*right_batch, *right_sum, *right_free])
    right = graph.reshape(right, (*batch, inner, math.prod(columns)))
    shape = (*batch, math.prod(rows), math.prod(columns))
    if equation.dtype != "float32":
        raise Unsupported(f"a product of {equation.dtype}")
    found = product(graph, "MatMul", left, right, shape)
    return graph.reshape(found, equation.shape)


def _window(graph: Graph, equation: Equation, kind: str, **more: Any) -> Value:
    """Pooling over the middle axes of [B, h, w, C]."""
    params = equation.params
    sides, steps, pads = (params[k] for k in ("window_dimensions", "window_strides", "padding"))
    dilations = [*params["base_dilation"], *params["window_dilation"]]
    ends = ((0, 0), (0, 0)), (1, 1), (1, 1)
    if (len(sides) != 4 or any(x != 1 for x in dilations)) or (
        (pads[0], pads[3]),
        (sides[0], sides[3]),
        (steps[0], steps[3]),
    ) != ends:
        raise Unsupported(f"{equation.name} over {sides}")
    image = graph.transpose(whole(graph, equation), (0, 3, 1, 2))
    batch, height, width, channels = equation.shape
    shape: Shape = (batch, channels, height, width)
    found = graph.emit(
        kind,
        [image],
        shape,
        equation.dtype,
        kernel_shape=list(sides[1:3]),
        strides=list(steps[1:3]),
        pads=[low for low, _ in pads[1:3]] + [high for _, high in pads[1:3]],
        **more,
    )
    return graph.transpose(found, (0, 2, 3, 1))


@operation("reduce_window_max")
def _max_pool(graph: Graph, equation: Equation) -> Value:
    return _window(graph, equation, "MaxPool")


@operation("reduce_window_sum")
def _sum_pool(graph: Graph, equation: Equation) -> Value:
    mean = _window(graph, equation, "AveragePool", count_include_pad=1)
    count = graph.constant(math.prod(equation.params["window_dimensions"]), equation.dtype)
    return graph.emit("Mul", [mean, count], equation.shape, equation.dtype)


@operation("tile")
def _tile(graph: Graph, equation: Equation) -> Value:
    times = graph.constant(equation.params["reps"], "int64")
    return graph.emit("Tile", [whole(graph, equation), times], equation.shape, equation.dtype)
