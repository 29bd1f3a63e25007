import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jdet.ops.matching import BELOW, fcos


def reference(points, reach, boxes, radius):
    """Point by point, as the publication has it."""
    result = []
    for (x, y), (low, high), near in zip(points, reach, radius):
        best = (np.inf, BELOW)
        for i, (x1, y1, x2, y2) in enumerate(boxes):
            sides = (x - x1, y - y1, x2 - x, y2 - y)
            centred = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < near
            if min(sides) > 0 and low <= max(sides) <= high and centred:
                best = min(best, ((x2 - x1) * (y2 - y1), i))
        result.append(best[1])
    return result


locate = jax.jit(fcos.assign)


@given(st.integers(0, 10**6), st.integers(0, 11), st.booleans())
def test_assignment_equals_the_rule_point_by_point(seed, count, centred):
    rng = np.random.default_rng(seed)
    # Whole numbers: points on edges, distances on the bounds, equal areas.
    low = rng.integers(0, 40, (11, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 30, (11, 2))], 1).astype(np.float32)
    points = rng.integers(0, 60, (50, 2)).astype(np.float32)
    reach = np.array([[0, 8], [8, 16], [16, np.inf]], np.float32)[rng.integers(0, 3, 50)]
    radius = rng.integers(2, 9, 50).astype(np.float32) if centred else None
    found = locate(boxes, jnp.arange(11) < count, points, reach, radius)
    within = radius if centred else np.full(50, np.inf)
    np.testing.assert_array_equal(found, reference(points, reach, boxes[:count], within))


def test_bounds_belong_to_both_levels_and_edges_to_none():
    box = jnp.array([[0.0, 0.0, 96.0, 96.0]])
    points = jnp.array([[64.0, 48.0], [64.0, 48.0], [96.0, 48.0]])
    reach = jnp.array([[0.0, 64.0], [64.0, 128.0], [64.0, 128.0]])
    found = locate(box, jnp.array([True]), points, reach, None)
    np.testing.assert_array_equal(found, [0, 0, -1])


def test_no_array_of_all_pairs_exists():
    """22,400 points of 800×1344 pixels and 100 objects: all pairs would take 9 MB a number."""
    points, objects = 22_400, 100
    shapes = [(objects, 4), (objects,), (points, 2), (points, 2), (points,)]
    types = ["float32", "bool", "float32", "float32", "float32"]
    arguments = [jax.ShapeDtypeStruct(s, t) for s, t in zip(shapes, types)]
    memory = locate.lower(*arguments).compile().memory_analysis()
    assert memory.temp_size_in_bytes < points * objects * 4 / 2
