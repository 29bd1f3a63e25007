"""Multiply-accumulates of a traced program, by module."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any


def count_macs(jaxpr: Any) -> dict[str, int]:
    """Multiply-accumulates of convolutions and products of matrices.

    Loops of known length count as often as they run, others once. Of a conditional the last branch
    counts: platforms choose between equal ones. What ``shard_map`` runs is one device's share.

    Args:
        jaxpr: of type ``jax.extend.core.Jaxpr``.

    Returns:
        Numbers by module path such as ``backbone/stem/conv1``.
    """
    macs: dict[str, int] = defaultdict(int)
    _count(jaxpr, "", 1, macs)
    return macs


def _count(jaxpr: Any, scope: str, times: int, macs: dict[str, int]) -> None:
    for equation in jaxpr.eqns:
        stack = str(equation.source_info.name_stack)
        here = "/".join(part for part in (scope, stack) if part)
        name = equation.primitive.name
        if name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            dims = equation.params["dimension_numbers"].rhs_spec
            per_output = math.prod(kernel) // kernel[dims[0]]
            # The gradient of a strided convolution spreads its input by zeros, which cost nothing.
            zeros = math.prod(equation.params["lhs_dilation"])
            outputs = math.prod(equation.outvars[0].aval.shape)
            macs[_module(here)] += times * outputs * per_output // zeros
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            inner = math.prod(equation.invars[0].aval.shape[i] for i in contracted)
            macs[_module(here)] += times * math.prod(equation.outvars[0].aval.shape) * inner
        elif name == "cond":
            branch = equation.params["branches"][-1]
            _count(branch.jaxpr, here, times, macs)
        else:
            length = equation.params.get("length", 1) if name == "scan" else 1
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    _count(inner, here, times * length, macs)


def _module(scope: str) -> str:
    """Module path of a name stack such as ``SSD/backbone/stem/conv1``."""
    parts = [part for part in scope.split("/") if part.isidentifier()]
    return "/".join(parts[1:]) if parts and parts[0][:1].isupper() else "/".join(parts)
