"""Greedy NMS by ONNX's own operation, and a proof in the graph that it decides as ``jdet.ops.nms`` does.

NonMaxSuppression compares quotients, ``overlap / union > threshold``, and jdet products, ``overlap >
threshold · union``, so that at the threshold itself, to rounding, they may differ. The operation therefore
runs twice, at a threshold a little lower and a little higher. Where both keep the same boxes, no two of
them overlap by more than the lower one, and each other box is overlapped by one before it by more than the
higher one; then they are what every threshold between gives, whichever way it is rounded. Else, which is
rare, the loop of ``jdet.ops.nms`` runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from jdet.export.onnx.elementwise import simple
from jdet.export.onnx.graph import Graph, Shape, Value

MARGIN = 2.0**-20
"""Share of a threshold by which it is moved; an IoU in single precision is within half of that."""


def _ordered(graph: Graph, boxes: Value) -> Value:
    """Boxes [S, n, 4] of which inverted ones, which the operation would turn round, are without area."""
    sets, count, _ = boxes.shape
    half = (sets, count, 2)
    told = [[graph.constant([x], "int64") for x in ends] for ends in ((0, 2, 2), (2, 4, 2))]
    low, high = (graph.emit("Slice", [boxes, *ends], half, "float32") for ends in told)
    high = simple(graph, "Max", low, high)
    return graph.emit("Concat", [low, high], boxes.shape, "float32", axis=2)


def _kept(graph: Graph, boxes: Value, ranked: Value, most: int, threshold: float) -> Value:
    """Which boxes NonMaxSuppression keeps in any class.

    Args:
        graph: to write to.
        boxes: float32 [S, n, 4].
        ranked: float32 [S, classes, n], highest first, no two equal in a class; 0: no candidate.
        most: boxes to keep of each class.
        threshold: IoU.

    Returns:
        bool [S, n].
    """
    told = [
        graph.constant([most], "int64"),
        *(graph.constant([x], "float32") for x in (threshold, 0.5)),
    ]
    found = graph.emit("NonMaxSuppression", [boxes, ranked, *told], ("m", 3), "int64")
    set_and_box = graph.constant((0, 2), "int64")
    places = graph.emit("Gather", [found, set_and_box], ("m", 2), "int64", axis=1)
    bounds = [graph.constant([x], "int64") for x in (0, 1)]
    count = graph.emit("Shape", [found], (2,), "int64")
    count = graph.emit("Slice", [count, *bounds], (1,), "int64")
    yes = graph.emit("Expand", [Value.of(np.ones(1, bool)), count], ("m",), "bool")
    shape = tuple(boxes.shape[:2])
    return graph.emit("ScatterND", [Value.of(np.zeros(shape, bool)), places, yes], shape, "bool")


def _sure(
    graph: Graph, boxes: Value, ranked: Value, most: int, threshold: Value
) -> tuple[Value, Value]:
    """Whether thresholds around the one asked for agree, bool [], and what is kept then, bool [S, n]."""
    assert threshold.const is not None
    middle = float(threshold.const)
    boxes = _ordered(graph, boxes)
    low, high = (
        _kept(graph, boxes, ranked, most, float(np.clip(middle * factor, 0, 1)))
        for factor in (1 - MARGIN, 1 + MARGIN)
    )
    same = graph.cast(simple(graph, "Equal", low, high, dtype="bool"), "int32")
    same = graph.emit("ReduceMin", [same], (), "int32", keepdims=0)
    return graph.cast(same, "bool"), low


def _places(count: int) -> Value:
    """Ranks as scores, float32 [n], the first highest; 0 is left for those that are no candidates."""
    return Value.of(np.arange(count, 0, -1).astype(np.float32))


def _greedy(
    graph: Graph, inputs: Sequence[Value], shapes: Sequence[Shape]
) -> tuple[Value, list[Value]]:
    """``nms.greedy_nms``: sorted boxes of several sets."""
    (shape,) = shapes
    sets, count = math.prod(shape[:-1]), shape[-1]
    boxes = graph.reshape(graph.full(inputs[0], (*shape, 4)), (sets, count, 4))
    valid = graph.reshape(graph.full(inputs[1], shape), (sets, 1, count))
    ranked = simple(graph, "Where", valid, _places(count), graph.constant(0, "float32"))
    sure, kept = _sure(graph, boxes, ranked, count, inputs[2])
    return sure, [graph.reshape(kept, shape)]


def _best(
    graph: Graph, inputs: Sequence[Value], shapes: Sequence[Shape]
) -> tuple[Value, list[Value]]:
    """``nms.best_of_nms``: candidates of several classes, which are sorted first."""
    boxes, scores, labels, threshold, per_class = inputs
    sides, keep = tuple(shapes[0][:-1]), shapes[0][-1]
    sets, count = math.prod(sides), scores.shape[-1]
    zero, flat = graph.constant(0, "float32"), (sets, count)
    assert per_class.const is not None
    most = min(keep, int(per_class.const) or keep)
    scores = graph.reshape(graph.full(scores, (*sides, count)), flat)
    positive = simple(graph, "Greater", scores, zero, dtype="bool")
    scores = simple(graph, "Where", positive, scores, zero)
    length = graph.constant([count], "int64")
    scores, order = graph.emit_many("TopK", [scores, length], [(flat, "float32"), (flat, "int64")])
    labels = graph.reshape(graph.full(labels, (*sides, count)), flat)
    labels = graph.emit("GatherElements", [labels, order], flat, "int32", axis=1)
    boxes = graph.reshape(graph.full(boxes, (*sides, count, 4)), (sets, count, 4))
    corners = graph.reshape(order, (sets, count, 1))
    corners = graph.full(corners, (sets, count, 4))
    boxes = graph.emit("GatherElements", [boxes, corners], boxes.shape, "float32", axis=1)
    # Classes are told apart by their scores; those beyond the last label have no candidates anyway.
    last = graph.emit("ReduceMax", [labels], (), "int32", keepdims=0)
    classes = simple(graph, "Add", last, graph.constant(1, "int32"))
    first, step = graph.constant(0, "int32"), graph.constant(1, "int32")
    classes = graph.emit("Range", [first, classes, step], ("k",), "int32")
    classes = graph.emit(
        "Reshape", [classes, graph.constant((1, -1, 1), "int64")], (1, "k", 1), "int32"
    )
    labels = graph.reshape(labels, (sets, 1, count))
    candidate = simple(graph, "Greater", scores, zero, dtype="bool")
    candidate = graph.reshape(candidate, (sets, 1, count))
    own = simple(graph, "Equal", labels, classes, dtype="bool")
    own = simple(graph, "And", own, candidate)
    ranked = simple(graph, "Where", own, _places(count), zero)
    sure, kept = _sure(graph, boxes, ranked, most, threshold)
    scores = simple(graph, "Where", kept, scores, zero)
    some = min(keep, count)
    best, place = graph.emit_many(
        "TopK",
        [scores, graph.constant([some], "int64")],
        [((sets, some), "float32"), ((sets, some), "int64")],
    )
    index = graph.emit("GatherElements", [order, place], (sets, some), "int64", axis=1)
    index = graph.cast(index, "int32")
    positive = simple(graph, "Greater", best, zero, dtype="bool")
    index = simple(graph, "Where", positive, index, graph.constant(0, "int32"))
    if some < keep:
        pads = graph.constant([0, 0, 0, keep - some], "int64")
        index, best = (
            graph.emit("Pad", [x, pads, graph.constant(0, x.dtype)], (sets, keep), x.dtype)
            for x in (index, best)
        )
    return sure, [graph.reshape(x, (*sides, keep)) for x in (index, best)]


CALLS: dict[str, Callable[[Graph, Sequence[Value], Sequence[Shape]], tuple[Value, list[Value]]]] = {
    "greedy_nms": _greedy,
    "best_of_nms": _best,
}
"""By the names of functions of ``jdet.ops.nms``: whether it is sure, and its outputs."""
