"""In which numbers the convolutions and products with weights of an ONNX graph are calculated.

All else, and with it every box, score and comparison of the post-processing, is of single precision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jdet.export.onnx.graph import Graph, Shape, Value

Ranges = Mapping[str, tuple[float, float]]
"""The least and largest input of layers, by ``key`` of their weights."""

CHOICES = ("float32", "float16", "int8")


class Precision(NamedTuple):
    """How layers are calculated.

    Attributes:
        name: one of ``CHOICES``.
        ranges: with "int8", of the layers; one that is not in it stays in single precision.
        observed: where what layers are given is to be found out, the tensors with the least and the largest
            value of each, by key; None: it is not.
    """

    name: str = "float32"
    ranges: Ranges = {}
    observed: dict[str, list[Value]] | None = None


SINGLE = Precision()


def key(weights: np.ndarray) -> str:
    """Of a layer; one that is applied to several levels has one range."""
    told = f"{weights.dtype}{weights.shape}".encode() + np.ascontiguousarray(weights).tobytes()
    return hashlib.blake2b(told, digest_size=12).hexdigest()


def product(
    graph: Graph, kind: str, value: Value, weights: Value, shape: Shape, **attributes: Any
) -> Value:
    """A node Conv or MatMul, whose weights may be a value of the program too.

    Args:
        graph: to write to; its precision is taken.
        kind: of the node.
        value: float32, the input.
        weights: float32, [O, I, h, w] of a convolution, [..., I, O] of a product.
        shape: of the output, float32.
        attributes: of the node.
    """
    how: Precision = graph.precision
    if weights.const is None or how.name == "float32" and how.observed is None:
        return graph.emit(kind, [value, weights], shape, "float32", **attributes)
    if how.name == "float16":
        halves = [graph.cast(x, "float16") for x in (value, weights)]
        found = graph.emit(kind, halves, shape, "float16", **attributes)
        return graph.cast(found, "float32")
    name = key(weights.const)
    if how.observed is not None and graph.outermost:
        for end in ("ReduceMin", "ReduceMax"):
            found = graph.emit(end, [value], (), "float32", keepdims=0)
            how.observed.setdefault(f"{name} {end}", []).append(found)
    if name in how.ranges:
        value = _by_bytes(graph, value, *how.ranges[name])
        weights = _weights(graph, weights.const, 0 if kind == "Conv" else weights.const.ndim - 1)
    return graph.emit(kind, [value, weights], shape, "float32", **attributes)


def _by_bytes(graph: Graph, value: Value, low: float, high: float) -> Value:
    """A value rounded to 256 steps from the least to the largest, of which 0 is one."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max((high - low) / 255, 1e-12))
    zero = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
    told = [Value.of(scale), Value.of(zero)]
    small = graph.emit("QuantizeLinear", [value, *told], value.shape, "uint8")
    return graph.emit("DequantizeLinear", [small, *told], value.shape, "float32")


def _weights(graph: Graph, weights: np.ndarray, axis: int) -> Value:
    """Weights in 255 steps, of a size of its own for every output."""
    others = tuple(i for i in range(weights.ndim) if i != axis)
    scale = np.maximum(np.abs(weights).max(others) / 127, 1e-12).astype(np.float32)
    sides = [1] * weights.ndim
    sides[axis] = -1
    small = np.clip(np.rint(weights / scale.reshape(sides)), -127, 127).astype(np.int8)
    told = [Value.of(x) for x in (small, scale, np.zeros(scale.shape, np.int8))]
    return graph.emit("DequantizeLinear", told, weights.shape, "float32", axis=axis)
