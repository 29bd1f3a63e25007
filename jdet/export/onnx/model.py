"""The ONNX export: graph, weights and what it says of itself in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jdet import __version__
from jdet.export.onnx import convert, proto
from jdet.export.onnx.table import Unsupported
from jdet.export.program import Program, single
from jdet.types import ConfigError

KEY = "jdet"
"""Of the manifest among the metadata of the file."""


def make(program: Program, variables: Any, thresholds: np.ndarray) -> proto.Graph:
    """The graph of a run, with inputs ``image`` [h, w, C] and ``size`` int32 [2].

    Args:
        program: of the run.
        variables: its weights.
        thresholds: float64 [K], lowest score of each class.

    Raises:
        ConfigError: the detector does something that ONNX, or ONNX Runtime, has no operation for.
    """
    if program.detector.dtype != jnp.float32:
        raise ConfigError(
            "config.precision='bfloat16': ONNX Runtime has no such convolutions on CPUs; export the run "
            "with --format=stablehlo"
        )
    leaves, tree = jax.tree.flatten(jax.device_get(variables))

    def flat(*arguments: Any) -> Mapping[str, Any]:
        weights, rest = arguments[: len(leaves)], arguments[len(leaves) :]
        return program(jax.tree.unflatten(tree, weights), *rest)

    height, width = jax.export.symbolic_shape("h, w")
    channels = program.kind.channels
    image = jax.ShapeDtypeStruct((height, width, channels), program.kind.dtype)
    inputs = [
        ("image", image, ("h", "w", channels)),
        ("size", jax.ShapeDtypeStruct((2,), jnp.int32), (2,)),
    ]
    try:
        return convert.convert(flat, [*leaves, single(thresholds)], inputs)
    except Unsupported as error:
        name = type(program.detector).__name__
        raise ConfigError(
            f"{name}: {error} cannot be written as ONNX; export the run with --format=stablehlo"
        ) from error


def pack(graph: proto.Graph, manifest: Mapping[str, Any]) -> bytes:
    """The file."""
    return proto.model(graph, f"jdet {__version__}", {KEY: json.dumps(manifest)})
