"""Types of values that differ between devices, for functions with gradients of their own."""

from __future__ import annotations

import jax


def match_varying(x: jax.Array, parameter: jax.Array) -> jax.Array:
    """Marks a replicated parameter as varying over the mesh axes that ``x`` varies over.

    Inside ``shard_map`` JAX does this by itself for its own operations, and its transpose is the sum
    of the gradient over those devices. A function with a custom gradient has to ask for it.
    Outside ``shard_map`` nothing changes.
    """
    missing = tuple(varying(x) - varying(parameter))
    return jax.lax.pcast(parameter, missing, to="varying") if missing else parameter


def varying(x: jax.Array) -> frozenset[str]:
    """The mesh axes along which ``x`` may differ from device to device."""
    kind = jax.typeof(x)
    # Named `vma` up to JAX 0.9.
    return kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying
