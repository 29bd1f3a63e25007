"""Multiply-accumulates of a traced program, by module."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple


class Placed(NamedTuple):
    """An equation of a program and where it stands.

    Attributes:
        module: path of the module that runs it, such as ``backbone/stem/conv1``; "" at the top.
        times: how often it runs.
        equation: of type ``jax.extend.core.JaxprEqn``.
    """

    module: str
    times: int
    equation: Any


def count_macs(jaxpr: Any) -> dict[str, int]:
    """Multiply-accumulates of convolutions and products of matrices.

    Loops of known length count as often as they run, others once. Of a conditional the last branch
    counts: platforms choose between equal ones. What ``shard_map`` runs is one device's share.

    Args:
        jaxpr: of type ``jax.extend.core.Jaxpr``.

    Returns:
        Numbers by module path such as ``backbone/stem/conv1``.
    """
    found: dict[str, int] = defaultdict(int)
    for module, times, equation in walk(jaxpr):
        if count := macs(equation):
            found[module] += times * count
    return found


def macs(equation: Any) -> int:
    """Multiply-accumulates of one equation; 0 where it is no convolution or product of matrices."""
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        dims = equation.params["dimension_numbers"].rhs_spec
        per_output = math.prod(kernel) // kernel[dims[0]]
        # The gradient of a strided convolution spreads its input by zeros, which cost nothing.
        zeros = math.prod(equation.params["lhs_dilation"])
        return math.prod(equation.outvars[0].aval.shape) * per_output // zeros
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        inner = math.prod(equation.invars[0].aval.shape[i] for i in contracted)
        return math.prod(equation.outvars[0].aval.shape) * inner
    return 0


def walk(jaxpr: Any, scope: str = "", times: int = 1) -> Iterator[Placed]:
    """All equations of a program, those inside of others after them; see ``count_macs``."""
    for equation in jaxpr.eqns:
        stack = str(equation.source_info.name_stack)
        here = "/".join(part for part in (scope, stack) if part)
        yield Placed(_module(here), times, equation)
        name = equation.primitive.name
        if name == "cond":
            yield from walk(equation.params["branches"][-1].jaxpr, here, times)
            continue
        length = equation.params.get("length", 1) if name == "scan" else 1
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from walk(inner, here, times * length)


def _module(scope: str) -> str:
    """Module path of a name stack such as ``SSD/backbone/stem/conv1``."""
    parts = [part for part in scope.split("/") if part.isidentifier()]
    return "/".join(parts[1:]) if parts and parts[0][:1].isupper() else "/".join(parts)
