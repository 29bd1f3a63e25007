import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdet.ops.matching import atss, points
from tests.ops.matching import test_atss

GRIDS = tuple(points.PointGrid(*args) for args in ((6, 9, 8.0), (3, 5, 16.0), (2, 3, 32.0)))
CONTENT = (45, 60)


def draw(seed, count, size=(60, 45)):
    """Objects of all sizes on the content."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (count, 2))
    sides = rng.uniform(1, 50, low.shape) ** rng.choice([0.5, 1, 1.2], (count, 1))
    return np.minimum(np.concatenate([low, low + sides], 1), (*size, *size)).astype(np.float32)


def all_points():
    found = []
    for grid in GRIDS:
        y, x = np.mgrid[: grid.rows, : grid.columns]
        found.append(np.stack([x, y], -1).reshape(-1, 2) * grid.stride)
    return found


def reference(boxes):
    """The authors' PointAssignerV2 with one point per object, in double precision."""
    places, strides = np.concatenate(all_points()), np.repeat([8, 16, 32], [54, 15, 6])
    boxes = boxes.astype(np.float64)
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    level = np.clip(np.trunc(np.log2(size / 4).mean(1)), 3, 5)
    away = places[:, None] - (boxes[:, :2] + boxes[:, 2:]) / 2
    distance = np.linalg.norm(away / size, axis=2)
    distance[np.log2(strides)[:, None] != level] = np.inf
    distance[(places >= CONTENT[::-1]).any(1)] = np.inf
    best, found = np.full(len(places), np.inf), np.full(len(places), -1)
    for i, row in enumerate(distance.T):
        j = np.argmin(row)
        if row[j] < best[j]:
            best[j], found[j] = row[j], i
    return found


assign = jax.jit(
    lambda boxes, valid: points.assign(boxes, valid, GRIDS, jnp.array(CONTENT, jnp.int32))
)


@given(st.integers(0, 10**6), st.integers(0, 12))
def test_assignment_equals_the_authors(seed, count):
    boxes = draw(seed, 12)
    found = assign(boxes, jnp.arange(12) < count)
    np.testing.assert_array_equal(found, reference(boxes[:count]) if count else -1)


def test_special_objects():
    boxes = jnp.array(
        [
            [10.0, 10.0, 20.0, 20.0],
            [10.0, 10.0, 20.0, 20.0],  # the same again: the first has the point
            [np.inf, 0.0, np.inf, 1.0],
            [np.nan, 0.0, 10.0, 10.0],
            [0.0, 0.0, 1e9, 1e9],  # larger than any level is for
        ]
    )
    found = np.asarray(points.assign(boxes, jnp.ones(5, bool), GRIDS, jnp.array(CONTENT)))
    assert sorted(set(found)) == [-1, 0, 4] and found[69:].max() == 4
    nothing = points.assign(boxes, jnp.ones(5, bool), GRIDS, jnp.array([0, 0]))
    assert (nothing == -1).all()


def as_boxes(content):
    """The anchors of the tests of ATSS as boxes, and which lie on the content."""
    levels, within = [], []
    for grid in test_atss.grids():
        y, x = jnp.meshgrid(grid.rows, grid.columns, indexing="ij")
        centre = jnp.stack([x, y], -1).reshape(-1, 2)
        levels.append(jnp.concatenate([centre - grid.side / 2, centre + grid.side / 2], 1))
        within.append(jnp.all(centre < jnp.array(content)[::-1], axis=1))
    return levels, within


assign_boxes = jax.jit(lambda boxes, *levels: atss.assign_boxes(boxes, jnp.ones(7, bool), *levels))


@pytest.mark.parametrize("seed", range(20))
def test_boxes_anywhere_are_assigned_as_on_a_grid(seed):
    """Levels of fewer boxes than candidates too; ties of the distance fall to the lower index in both."""
    boxes = draw(seed, 7)
    found = assign_boxes(boxes, *as_boxes(CONTENT))
    expected = test_atss.reference(boxes, CONTENT)
    np.testing.assert_array_equal(found, expected)


def test_boxes_without_finite_coordinates_are_no_candidates():
    levels, within = as_boxes(CONTENT)
    boxes = draw(0, 7)
    wild = jnp.array([[np.nan] * 4, [-np.inf, 0, 5, 5], [0, 0, 5, np.inf]], jnp.float32)
    levels = [jnp.concatenate([level, wild]) for level in levels]
    found = assign_boxes(boxes, levels, [jnp.append(w, jnp.ones(3, bool)) for w in within])
    ends = np.cumsum([len(level) for level in levels])[:-1]
    parts = np.split(np.asarray(found), ends)
    assert all((part[-3:] == -1).all() for part in parts)
    expected = test_atss.reference(boxes, CONTENT)
    np.testing.assert_array_equal(np.concatenate([part[:-3] for part in parts]), expected)
