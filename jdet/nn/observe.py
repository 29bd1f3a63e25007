"""What enters and leaves the layers of a network while it is traced, and whose scale does not matter.

A layer is a convolution or a dense layer, named by the path of its kernel. A module of ours with a kernel
says by a method ``input_power``, which takes the same arguments, what it reads: for every position of its
output the mean square of the inputs, float32. A module that normalises the output of layers of its own
names their kernels in a property ``scale_invariant``, relative to itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Call(NamedTuple):
    """One call of a layer.

    Attributes:
        power: float32 [B, …], mean square of the inputs of every output position.
        output: [B, …, N].
    """

    power: jax.Array
    output: jax.Array


@contextlib.contextmanager
def layers(
    added: Mapping[str, Sequence[jax.Array]] | None = None,
) -> Iterator[dict[str, list[Call]]]:
    """Context in which a network is traced once; collects the calls of its layers.

    Layers inside of what is computed again in the backward pass cannot be seen from outside; take a
    network without rematerialisation.

    Args:
        added: arrays to add to the outputs of every layer's calls, by path of the kernel. With zeros, the
            gradient by them is what comes back to these outputs.

    Yields:
        Calls by path of the kernel, filled while the network is traced.
    """
    seen: dict[str, list[Call]] = {}

    def observe(function, args, kwargs, context):
        module, y = context.module, function(*args, **kwargs)
        dense = isinstance(module, nn.Dense)
        if context.method_name != "__call__" or not (dense or hasattr(module, "input_power")):
            return y
        if dense:
            power = jnp.mean(jnp.square(args[0].astype(jnp.float32)), axis=-1)
        else:
            power = module.input_power(*args)
        path = "/".join((*module.path, "kernel"))
        calls = seen.setdefault(path, [])
        if added is not None:
            y = y + added[path][len(calls)].astype(y.dtype)
        calls.append(Call(power, y))
        return y

    with nn.intercept_methods(observe):
        yield seen


@contextlib.contextmanager
def scale_invariant() -> Iterator[set[str]]:
    """Context in which a network is traced; collects kernels whose output is normalised at once.

    Multiplying such a kernel by a number changes nothing that the network computes, up to the number that
    norms add to variances, and divides its gradient by that number.

    Yields:
        Paths of kernels, filled while the network is traced.
    """
    seen: set[str] = set()

    def observe(function, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__":
            own = getattr(module, "scale_invariant", ())
            seen.update("/".join((*module.path, kernel)) for kernel in own)
        return function(*args, **kwargs)

    with nn.intercept_methods(observe):
        yield seen
