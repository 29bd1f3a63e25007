import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P
from scipy.optimize import linear_sum_assignment

from jdet.ops.matching import BELOW, hungarian

OBJECTS, PROPOSALS = 100, 300
assign = jax.jit(hungarian.assign, static_argnums=2)


def problem(rng, objects, proposals, whole):
    """Costs of a problem in a larger array: other columns are infinite, other rows are not valid."""
    costs = np.full((OBJECTS, PROPOSALS), np.inf, np.float32)
    found = (
        rng.integers(0, 6, (objects, proposals)) if whole else rng.normal(size=(objects, proposals))
    )
    rows = np.sort(rng.choice(OBJECTS, objects, replace=False))
    costs[rows[:, None], np.arange(proposals)] = found
    return costs, np.isin(np.arange(OBJECTS), rows)


def total(costs, match):
    """Cost of an assignment, and how many objects it gives a proposal; each object at most one."""
    there = np.flatnonzero(match != BELOW)
    assert len(set(match[there])) == len(there)
    return costs[match[there], there].astype(float).sum(), len(there)


def test_costs_equal_scipys():
    """200 random problems of up to 100 objects and 300 proposals, half of them full of ties."""
    rng = np.random.default_rng(0)
    sizes = [(100, 300), (1, 1), (0, 20), (60, 30)]
    sizes += [(rng.integers(1, 40), rng.integers(1, 301)) for _ in range(196)]
    made = [problem(rng, *size, whole=i % 2) for i, size in enumerate(sizes)]
    costs, valid = (np.stack(x) for x in zip(*made))
    match = np.asarray(assign(costs, valid, "device"))
    for cost, real, found, (objects, proposals) in zip(costs, valid, match, sizes):
        assert real[found[found != BELOW]].all()
        cut = cost[real][:, :proposals]
        best = cut[linear_sum_assignment(cut)].astype(float).sum()
        value, count = total(cost, found)
        assert count == min(objects, proposals)
        np.testing.assert_allclose(value, best, rtol=1e-5, atol=1e-5)


def test_the_host_gives_the_same():
    """Problems of one best assignment: row by row the same, whoever solves them."""
    rng = np.random.default_rng(1)
    costs = rng.normal(size=(2, 3, 7, 20)).astype(np.float32)
    costs[0, 0, :, :15] = np.nan  # seven objects and five proposals that can be had
    costs[1, 2, 3] = np.inf
    valid = rng.random((3, 7)) < 0.7
    valid[0] = True
    device, host = (np.asarray(assign(costs, valid, backend)) for backend in ("device", "host"))
    np.testing.assert_array_equal(device, host)
    assert (device != BELOW).sum((-1, -2))[0] == 5 + valid[1].sum() + valid[2].sum()
    assert not (device[1, 2] == 3).any()


def test_a_cost_far_from_all_others_leaves_them_apart():
    """One proposal that nobody wants, with fewer proposals than objects and with more."""
    rng = np.random.default_rng(2)
    for objects, proposals in ((60, 40), (40, 60)):
        costs, valid = problem(rng, objects, proposals, whole=False)
        costs[valid, 0] += 1e8
        for backend in ("device", "host"):
            found = np.asarray(assign(costs, valid, backend))
            cut = np.minimum(costs[valid][:, :proposals], hungarian.LARGEST)
            best = cut[linear_sum_assignment(cut)].astype(float).sum()
            value = total(np.minimum(costs, hungarian.LARGEST), found)[0]
            np.testing.assert_allclose(value, best, atol=0.05)


def test_padding_changes_nothing():
    """Not even which of several equal assignments is taken."""
    costs = np.random.default_rng(2).integers(0, 3, (5, 20)).astype(np.float32)
    for backend in ("device", "host"):
        alone = np.asarray(assign(costs, np.ones(5, bool), backend))
        rows = np.array([1, 2, 6, 7, 9])
        for fill in (0.0, -50.0, np.nan):
            padded = np.full((11, 20), fill, np.float32)
            padded[rows] = costs
            found = np.asarray(assign(padded, np.isin(np.arange(11), rows), backend))
            np.testing.assert_array_equal(found, np.where(alone < 0, BELOW, rows[alone]))


@pytest.mark.parametrize("backend", ["device", "host"])
def test_what_is_no_number_is_never_matched(backend):
    nan, inf = np.nan, np.inf
    costs = np.array([[[nan, 1, 2], [-inf, inf, 1]], [[nan] * 3, [3e38, -3e38, 0]]], np.float32)
    found = assign(costs, np.array([True, True]), backend)
    np.testing.assert_array_equal(found, [[BELOW, 0, 1], [BELOW, 1, BELOW]])
    more = np.array([[[5, 1], [1, 9], [2, 3], [2, 2]]], np.float32)  # four objects, two proposals
    np.testing.assert_array_equal(assign(more, np.ones(4, bool), backend), [[1, 0]])
    np.testing.assert_array_equal(assign(more, np.arange(4) > 0, backend), [[1, 3]])


def test_nothing_to_match():
    for shape in ((2, 0, 5), (2, 3, 0), (0, 3, 5)):
        found = hungarian.assign(jnp.zeros(shape), jnp.ones(shape[:2], bool))
        assert found.shape == (shape[0], shape[2]) and found.dtype == jnp.int32
        assert (found == BELOW).all()
    with pytest.raises(ValueError, match="backend='gpu'; it can be one of device, host"):
        hungarian.assign(jnp.zeros((1, 2, 2)), jnp.ones(2, bool), "gpu")


@pytest.mark.parametrize("backend", ["device", "host"])
def test_devices_of_a_mesh_solve_their_own(backend):
    costs = np.random.default_rng(3).normal(size=(4, 7, 20)).astype(np.float32)
    valid = np.arange(7) < np.array([[7], [0], [3], [5]])
    axes = ("group", "member")
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), axes, axis_types=(AxisType.Auto,) * 2)
    run = functools.partial(hungarian.assign, backend=backend)
    split = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P(axes), out_specs=P(axes)))
    np.testing.assert_array_equal(split(costs, valid), hungarian.assign(costs, valid, "device"))
