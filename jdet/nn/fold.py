"""Batch norms with fixed statistics folded into the convolutions before them, for inference.

At evaluation a batch norm is one multiplication and one addition per channel. The factor can be part of
the kernel of the convolution before it, so that only the addition of a bias is left. That needs a
convolution whose output nothing but the norm reads. A module with such pairs names them in a property
``folds``, paths of convolution and norm relative to itself; whether the norm is there and a batch norm, of
whichever kind, is seen when the network is traced.

Not folded are norms before a convolution that the input takes another way around as well (pre-activation
blocks, dense blocks), norms after a pool, and those of heads whose levels share a convolution but not its
norm, where every level would need a copy of the kernel. A norm cannot be folded into the convolution after
it: the ReLU is between them, and its shift would be missing in the zeros around the map.

The result has the structure of variables, smaller: kernels are multiplied, what the norms had in ``params``
and ``batch_stats`` is gone, and the collection ``folded`` holds their shifts. Checkpoints are of the
variables before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict, unflatten_dict

Path = tuple[str, ...]


class Pair(NamedTuple):
    """A convolution and the batch norm after it.

    Attributes:
        conv: path of the convolution.
        norm: path of the norm.
        epsilon: of the norm, added to the variance.
    """

    conv: Path
    norm: Path
    epsilon: float


@contextlib.contextmanager
def pairs() -> Iterator[list[Pair]]:
    """Context in which a network is traced at evaluation.

    Yields:
        What can be folded, there once the context is left.
    """
    declared: dict[tuple[Path, Path], None] = {}
    epsilons: dict[Path, float] = {}
    found: list[Pair] = []

    def observe(function, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__":
            for names in getattr(module, "folds", ()):
                conv, norm = ((*module.path, *name.split("/")) for name in names)
                declared[conv, norm] = None
            if getattr(module, "is_batch_norm", False):
                epsilons[module.path] = module.epsilon
        return function(*args, **kwargs)

    with nn.intercept_methods(observe):
        yield found
    found += [Pair(conv, norm, epsilons[norm]) for conv, norm in declared if norm in epsilons]


def fold(variables: Mapping[str, Any], found: Sequence[Pair]) -> dict[str, Any]:
    """The variables of the same function with these norms folded.

    Args:
        variables: ``params``, ``batch_stats`` and whatever else.
        found: from ``pairs``.
    """
    if not found:
        return dict(variables)
    params: dict[Path, Any] = flatten_dict(variables["params"])
    stats: dict[Path, Any] = flatten_dict(variables["batch_stats"])
    shifts = {}
    for conv, norm, epsilon in found:
        values = {
            path[-1]: values.pop(path)
            for values in (params, stats)
            for path in [path for path in values if path[:-1] == norm]
        }
        factor = values["scale"] * jax.lax.rsqrt(values["var"] + epsilon)
        shifts[(*norm, "shift")] = values["bias"] - values["mean"] * factor
        for path in [path for path in params if path[:-1] == conv]:
            params[path] = params[path] * factor  # the last axis is that of the output
    rest = {name: variables[name] for name in variables if name not in ("params", "batch_stats")}
    return rest | {
        "params": unflatten_dict(params),
        "batch_stats": unflatten_dict(stats),
        "folded": unflatten_dict(shifts),
    }
