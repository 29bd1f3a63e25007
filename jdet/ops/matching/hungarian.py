"""One-to-one assignment of least total cost, as detectors that learn from sets of predictions need it.

The algorithm is that of shortest augmenting paths (Jonker & Volgenant 1987, in the form of Crouse 2016,
which SciPy has too): objects are assigned one after the other, and each may push those before it to other
proposals. Padding is no object, so it is not even looked at.

optax has such a solver as well (``optax.assignment``). It cannot be used in a training step: its loops are
not typed for values that differ between the devices of a mesh. It also assigns all rows, padding too.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jdet.ops.matching.best_objects import BELOW
from jdet.ops.vma import match_varying

BACKENDS = ("device", "host")
"""Where matching runs, see ``assign``."""

LARGEST = 1e4
"""Costs beyond this, in either direction, count as this: sums of float32 keep the others apart."""


def assign(
    costs: jax.Array,
    valid: jax.Array,
    backend: str = "device",
) -> jax.Array:
    """Gives every object a proposal of its own, so that the sum of costs is the least.

    Two objects and three proposals. Both like proposal 0 best; object 1 has the better second choice:

    >>> costs = jnp.array([[1.0, 5.0, 9.0], [2.0, 9.0, 3.0]])
    >>> assign(costs, jnp.array([True, True])).tolist()
    [0, -1, 1]

    Without object 0, which may be padding, it takes its first choice; a pair without a number is none:

    >>> assign(costs, jnp.array([False, True])).tolist()
    [1, -1, -1]
    >>> assign(costs.at[1, 0].set(jnp.nan), jnp.array([False, True])).tolist()
    [-1, -1, 1]

    A pair whose cost is not finite is never matched. As many objects as possible get a proposal, and among
    these assignments the one of least cost is taken; where there are more objects than proposals, some
    get none. Rows that are not valid change nothing, also not which of several equal assignments is taken.
    No gradient flows through the result.

    Args:
        costs: float32 [..., N, R], of every pair of an object and a proposal.
        valid: bool, broadcast to [..., N], which rows are objects.
        backend: "device": in the program. "host": by SciPy in a callback. On CPUs the first is faster, but
            where images are full of objects, there it takes up to twice as long
            (docs/points_and_queries.md). JAX's compilation cache does not keep programs with callbacks.

    Returns:
        int32 [..., R]: index of each proposal's object, or ``BELOW``.

    Raises:
        ValueError: ``backend`` is none of ``BACKENDS``.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}; it can be one of {', '.join(BACKENDS)}")
    costs = jax.lax.stop_gradient(jnp.asarray(costs, jnp.float32))
    *outer, objects, proposals = costs.shape
    valid = jnp.broadcast_to(valid, costs.shape[:-1])
    if not costs.size:
        return match_varying(costs, jnp.full((*outer, proposals), BELOW, jnp.int32))
    allowed = valid[..., None] & jnp.isfinite(costs)
    solvable = _solvable(costs, allowed).reshape(-1, objects, max(objects, proposals))
    solve = _ask_host if backend == "host" else jax.vmap(on_device)
    row_of = solve(solvable, valid.reshape(-1, objects))
    row_of = row_of.reshape(*outer, -1)[..., :proposals]
    row = jnp.maximum(row_of, 0)
    there = jnp.take_along_axis(allowed, row[..., None, :], axis=-2)[..., 0, :]
    return jnp.where((row_of >= 0) & there, row, BELOW)


def _solvable(costs, allowed):
    """Costs from 0 on, float32 [..., N, C] with at least as many columns as rows.

    What is not allowed costs more than any rearrangement of all others could save, and so do the columns
    that are added, which stand for "no proposal".
    """
    objects, proposals = costs.shape[-2:]
    costs = jnp.clip(costs, -LARGEST, LARGEST)
    low = jnp.min(costs, (-2, -1), keepdims=True, where=allowed, initial=LARGEST)
    high = jnp.max(costs, (-2, -1), keepdims=True, where=allowed, initial=-LARGEST)
    too_much = (1 + objects) * jnp.maximum(high - low, 0) + 1
    costs = jnp.where(allowed, costs - low, too_much)
    more = jnp.broadcast_to(too_much, (*costs.shape[:-1], max(objects - proposals, 0)))
    return jnp.concatenate([costs, more], axis=-1)


def on_device(costs: jax.Array, valid: jax.Array) -> jax.Array:
    """Shortest augmenting paths, of one problem.

    Args:
        costs: float32 [N, C], finite, C ≥ N.
        valid: bool [N], which rows are assigned.

    Returns:
        int32 [C], row of each column, -1 where it has none.
    """
    rows, columns = costs.shape
    order = jnp.argsort(~valid, stable=True)
    count = jnp.sum(valid)
    varied = functools.partial(match_varying, costs)

    def search(start, u, v, row_of):
        """Dijkstra's algorithm from a row to the nearest free column."""

        def unfinished(state):
            return state[-1] < 0

        def step(state):
            shortest, before, closed, row, length, _ = state
            through = length + costs[row] - u[row] - v
            better = ~closed & (through < shortest)
            shortest, before = jnp.where(better, through, shortest), jnp.where(better, row, before)
            open_ = jnp.where(closed, jnp.inf, shortest)
            length = jnp.min(open_)
            # Of equally near columns a free one: it ends the search.
            column = jnp.argmax(jnp.where(open_ == length, 1 + (row_of < 0), 0))
            row = row_of[column]
            end = jnp.where(row < 0, column, -1).astype(jnp.int32)
            closed = closed.at[column].set(True)
            return shortest, before, closed, jnp.maximum(row, 0), length, end

        state = (
            varied(jnp.full(columns, jnp.inf)),
            varied(jnp.full(columns, -1, jnp.int32)),
            varied(jnp.zeros(columns, bool)),
            start,
            varied(jnp.float32(0)),
            varied(jnp.int32(-1)),
        )
        shortest, before, closed, _, length, end = jax.lax.while_loop(unfinished, step, state)
        return shortest, before, closed, length, end

    def shift(start, before, end, row_of, column_of):
        """Assigns along the path: every row on it moves to the column that it was left by."""

        def body(state):
            column, row_of, column_of, _ = state
            row = before[column]
            row_of = row_of.at[column].set(row)
            return column_of[row], row_of, column_of.at[row].set(column), row == start

        state = (end, row_of, column_of, varied(jnp.bool_(False)))
        return jax.lax.while_loop(lambda state: ~state[-1], body, state)[1:3]

    def assign_one(state):
        number, u, v, row_of, column_of = state
        start = order[number].astype(jnp.int32)
        shortest, before, closed, length, end = search(start, u, v, row_of)
        gain = jnp.where(closed, length - shortest, 0.0)
        u = u.at[start].add(length)
        u = u.at[jnp.where(row_of < 0, rows, row_of)].add(gain, mode="drop")
        row_of, column_of = shift(start, before, end, row_of, column_of)
        return number + 1, u, v - gain, row_of, column_of

    state = (
        varied(jnp.int32(0)),
        varied(jnp.zeros(rows)),
        varied(jnp.zeros(columns)),
        varied(jnp.full(columns, -1, jnp.int32)),
        varied(jnp.full(rows, -1, jnp.int32)),
    )
    return jax.lax.while_loop(lambda state: state[0] < count, assign_one, state)[3]


def _ask_host(costs, valid):
    """``on_host`` in a program."""
    shape = jax.ShapeDtypeStruct((costs.shape[0], costs.shape[2]), jnp.int32)
    found = jax.pure_callback(on_host, shape, costs, valid, vmap_method="sequential")
    return match_varying(costs, found)


def on_host(costs: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """SciPy's solver, problem by problem; arguments and result as of ``on_device`` with a leading axis."""
    # Here, as it takes half a second that only those pay who match on the host.
    from scipy.optimize import linear_sum_assignment

    costs, valid = np.asarray(costs), np.asarray(valid)
    row_of = np.full((costs.shape[0], costs.shape[2]), -1, np.int32)
    for found, cost, real in zip(row_of, costs, valid):
        rows = np.flatnonzero(real)
        taken, columns = linear_sum_assignment(cost[rows])
        found[columns] = rows[taken]
    return row_of
