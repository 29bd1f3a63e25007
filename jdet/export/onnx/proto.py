"""ONNX's protocol buffers, written byte by byte: the dozen messages that a model needs.

Field numbers are those of ``onnx.proto3`` (ONNX 1.15, IR version 8).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

IR_VERSION, OPSET = 8, 18

TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
}
"""``TensorProto.DataType`` by the name of a NumPy type."""


class Graph(bytes):
    """An encoded GraphProto, to be told from text in attributes."""


def varint(value: int) -> bytes:
    """A whole number, negative ones in two's complement of 64 bits."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """A field of a whole number."""
    return varint(field << 3) + varint(value)


def data(field: int, value: bytes | str) -> bytes:
    """A field of a message, text or bytes."""
    encoded = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(encoded)) + encoded


def tensor(name: str, values: np.ndarray) -> bytes:
    """A TensorProto."""
    dims = b"".join(number(1, side) for side in values.shape)
    kind = number(2, TYPES[str(values.dtype)])
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return dims + kind + data(8, name) + data(9, little.tobytes())


def attribute(name: str, value: Any) -> bytes:
    """An AttributeProto: a whole number, a float, text, a graph, or whole numbers."""
    if isinstance(value, Graph):
        field, kind = data(6, value), 5
    elif isinstance(value, str):
        field, kind = data(4, value), 3
    elif isinstance(value, float):
        field, kind = varint(2 << 3 | 5) + struct.pack("<f", value), 1
    elif isinstance(value, Sequence):
        field, kind = b"".join(number(8, int(each)) for each in value), 7
    else:
        field, kind = number(3, int(value)), 2
    return data(1, name) + field + number(20, kind)


def node(
    kind: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Mapping[str, Any]
) -> bytes:
    """A NodeProto."""
    return (
        b"".join(data(1, each) for each in inputs)
        + b"".join(data(2, each) for each in outputs)
        + data(4, kind)
        + b"".join(data(5, attribute(*each)) for each in attributes.items())
    )


def value(name: str, dtype: str, shape: Sequence[int | str] | None) -> bytes:
    """A ValueInfoProto; a side is a number or a name, and None a shape that is not told."""
    kind = number(1, TYPES[dtype])
    if shape is not None:
        sides = (data(2, side) if isinstance(side, str) else number(1, side) for side in shape)
        kind += data(2, b"".join(data(1, side) for side in sides))
    return data(1, name) + data(2, data(1, kind))


def graph(
    name: str,
    nodes: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    tensors: Sequence[bytes] = (),
) -> Graph:
    """A GraphProto."""
    return Graph(
        b"".join(data(1, each) for each in nodes)
        + data(2, name)
        + b"".join(data(5, each) for each in tensors)
        + b"".join(data(11, each) for each in inputs)
        + b"".join(data(12, each) for each in outputs)
    )


def model(content: Graph, producer: str, metadata: Mapping[str, str]) -> bytes:
    """A ModelProto, what a file of ONNX is."""
    return (
        number(1, IR_VERSION)
        + data(2, producer)
        + data(7, content)
        + data(8, number(2, OPSET))
        + b"".join(data(14, data(1, key) + data(2, text)) for key, text in metadata.items())
    )
