"""A parameter tree in two parts, those that train and those that are frozen."""

from __future__ import annotations

from typing import Any

import jax


def split(tree: Any, chosen: Any) -> tuple[Any, Any]:
    """The chosen leaves of a tree and the others, each with None in the place of what it lacks.

    JAX takes None for an empty tree, so what is not chosen is neither differentiated nor sent.

    Args:
        tree: nested dicts of arrays; may itself lack leaves.
        chosen: the same dicts with a bool for every leaf.
    """
    return (
        jax.tree.map(lambda keep, x: x if keep else None, chosen, tree),
        jax.tree.map(lambda keep, x: None if keep else x, chosen, tree),
    )


def merge(first: Any, second: Any) -> Any:
    """What ``split`` was given."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, first, second, is_leaf=lambda x: x is None
    )
