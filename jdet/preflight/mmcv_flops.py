"""Complexity by the rules of MMCV's ``get_model_complexity_info``, which papers print as "FLOPs".

It is not quite the number of multiply-accumulates that ``jdet.describe`` shows. One is counted for every
multiply-accumulate of a convolution (and one for each bias that it adds) and of a dense layer (its bias is
free), two for every number that a norm puts out, one for every number that enters a ReLU or a max-pool.
GELU, softmax, interpolation and boxes are free, and so are products of two computed matrices. Those of a
backbone's attention are added by hand by the authors of Swin and those who follow their code. Heads count
for as many RoIs as ``detect`` has.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdet.preflight.flops import macs, walk


class MmcvFlops(NamedTuple):
    """Counts of one image.

    Attributes:
        total: as MMCV counts; papers divide by 10^9 and write "G".
        attention: products of queries with keys and of their weights with values in the backbone, not in
            ``total``.
    """

    total: int
    attention: int


def mmcv_flops(detector: Any, variables: Any, shape: tuple[int, int]) -> MmcvFlops:
    """Counts the network of a detector for one image.

    Args:
        detector: Linen module with ``detect``.
        variables: its variables, arrays or shapes.
        shape: height and width of the network input, pixels. MMDetection's tool takes 1280 × 800.
    """
    kind = detector.image_kind
    image = jax.ShapeDtypeStruct((1, *shape, kind.channels), kind.dtype)
    sizes = jax.ShapeDtypeStruct((1, 2), jnp.int32)

    def run(variables, images, sizes):
        return detector.apply(
            variables, images, sizes, method="detect", capture_intermediates=True
        )[1]["intermediates"]

    closed, made = jax.make_jaxpr(run, return_shape=True)(variables, image, sizes)
    layers: dict[str, dict[str, Any]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        *module, name = (str(key.key) for key in path)
        layers.setdefault("/".join(module), {})[name] = leaf
    # Nor what is no module there: decoding, at the top, and the ReLU of MMDetection's RPN.
    uncounted = {"", *(field for field, kind in detector.parts.items() if kind == "rpn")}
    backbones = {field for field, kind in detector.parts.items() if kind == "backbone"}
    total = attention = 0
    for module, times, equation in walk(closed.jaxpr):
        count, outputs = macs(equation), math.prod(equation.outvars[0].aval.shape)
        if count and equation.primitive.name == "dot_general" and _of_pairs(equation):
            attention += times * count if module.split("/")[0] in backbones else 0
        elif count:
            own = layers.get(module, {})
            biased = "bias" in own and own["kernel"].ndim == 4
            total += times * (count + outputs * biased)
        elif _function(equation) in ("relu", "_max_pool") and module.split("/")[0] not in uncounted:
            total += times * math.prod(equation.invars[0].aval.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(made):
        module = "/".join(str(key.key) for key in path if hasattr(key, "key"))
        own = layers.get(module.removesuffix("/__call__"), {})
        if "scale" in own:
            total += 2 * leaf.size
    return MmcvFlops(total, attention)


def _of_pairs(equation: Any) -> bool:
    """Whether a product is of pairs of matrices rather than of one matrix with a kernel."""
    return bool(equation.params["dimension_numbers"][1][0])


def _function(equation: Any) -> str:
    """Name of the Python function with its own derivative that an equation calls; "" for others."""
    if equation.primitive.name not in ("custom_jvp_call", "custom_vjp_call"):
        return ""
    return equation.params["call_jaxpr"].jaxpr.debug_info.func_src_info.split(" ")[0]
