"""Varying manual axes (VMA): along which mesh axes a value inside ``shard_map`` differs between devices.

For functions with custom gradients, which have to declare it themselves.
"""

from __future__ import annotations

import jax


def match_varying(x: jax.Array, parameter: jax.Array) -> jax.Array:
    """Marks a replicated parameter as varying over the mesh axes over which ``x`` varies.

    Inside ``shard_map`` JAX does this for its own operations, and the transpose is the sum of the gradient
    over those devices. A function with a custom gradient has to call this. Outside ``shard_map`` nothing
    changes.
    """
    missing = tuple(varying(x) - varying(parameter))
    return jax.lax.pcast(parameter, missing, to="varying") if missing else parameter


def varying(x: jax.Array) -> frozenset[str]:
    """The mesh axes along which ``x`` may differ from device to device."""
    kind = jax.typeof(x)
    # JAX up to 0.9 names it `vma`.
    return kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying
