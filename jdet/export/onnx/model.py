"""The ONNX export: graph, weights and what it says of itself in one file."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jdet import __version__
from jdet.export.onnx import convert, proto
from jdet.export.onnx.precision import SINGLE, Precision, Ranges
from jdet.export.onnx.table import Unsupported
from jdet.export.program import Program, single
from jdet.types import ConfigError

KEY = "jdet"
"""Of the manifest among the metadata of the file."""


def make(
    program: Program, variables: Any, thresholds: np.ndarray, precision: Precision = SINGLE
) -> proto.Graph:
    """The graph of a run, with inputs ``image`` [h, w, C] and ``size`` int32 [2].

    Args:
        program: of the run.
        variables: its weights.
        thresholds: float64 [K], lowest score of each class.
        precision: of the network.

    Raises:
        ConfigError: the detector does something that ONNX, or ONNX Runtime, has no operation for.
    """
    return _graph(program, program, variables, [single(thresholds)], precision)


def ranges(
    program: Program,
    variables: Any,
    images: Iterable[np.ndarray],
    observe: Callable[[bytes, Iterable[np.ndarray]], Iterator[Mapping[str, float]]],
) -> Ranges:
    """What the layers of the network are given: means over images of the least and the largest value.

    Args:
        program: of the run.
        variables: its weights.
        images: [h, w, C], as the program takes them.
        observe: of a model and images, the numbers that it gives for each.

    Raises:
        ConfigError: as ``make``.
    """
    by_shape: dict[int, list[np.ndarray]] = {}
    for image in images:
        by_shape.setdefault(program.resize.shape_of(*image.shape[:2]), []).append(image)
    ends: dict[str, list[np.ndarray]] = {}
    for index, shown in by_shape.items():
        watched = Precision(observed={})
        seen = functools.partial(_scores, program, program.resize.shapes[index])
        graph = _graph(program, seen, variables, [], watched)
        layers = {name.split()[0] for name in watched.observed or ()}
        for values in observe(pack(graph, {}), shown):
            for layer in layers:
                told = [(k.split()[1], v) for k, v in values.items() if k.startswith(layer)]
                low = min(v for end, v in told if end == "ReduceMin")
                high = max(v for end, v in told if end == "ReduceMax")
                ends.setdefault(layer, []).append(np.array([low, high]))
    means = {layer: np.mean(each, axis=0) for layer, each in ends.items()}
    return {layer: (float(low), float(high)) for layer, (low, high) in means.items()}


def _scores(program: Program, shape: tuple[int, int], *arguments: Any) -> Mapping[str, Any]:
    """One output of the network, for which all of it is needed."""
    found, _ = program.seen_as(shape, *arguments)
    return {"scores": found.scores}


def _graph(
    program: Program,
    function: Callable[..., Mapping[str, Any]],
    variables: Any,
    constants: Sequence[np.ndarray],
    precision: Precision,
) -> proto.Graph:
    """The graph of a function of the weights, the constants, an image and its size."""
    if program.detector.dtype != jnp.float32:
        raise ConfigError(
            "config.precision='bfloat16': ONNX Runtime has no such convolutions on CPUs; export the run "
            "with --format=stablehlo"
        )
    leaves, tree = jax.tree.flatten(jax.device_get(variables))

    def flat(*arguments: Any) -> Mapping[str, Any]:
        weights, rest = arguments[: len(leaves)], arguments[len(leaves) :]
        return function(jax.tree.unflatten(tree, weights), *rest)

    height, width = jax.export.symbolic_shape("h, w")
    channels = program.kind.channels
    image = jax.ShapeDtypeStruct((height, width, channels), program.kind.dtype)
    inputs = [
        ("image", image, ("h", "w", channels)),
        ("size", jax.ShapeDtypeStruct((2,), jnp.int32), (2,)),
    ]
    try:
        return convert.convert(flat, [*leaves, *constants], inputs, precision)
    except Unsupported as error:
        name = type(program.detector).__name__
        raise ConfigError(
            f"{name}: {error} cannot be written as ONNX; export the run with --format=stablehlo"
        ) from error


def pack(graph: proto.Graph, manifest: Mapping[str, Any]) -> bytes:
    """The file."""
    return proto.model(graph, f"jdet {__version__}", {KEY: json.dumps(manifest)})
