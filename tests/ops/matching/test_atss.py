import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jdet.ops.matching import atss

SHAPES = ((6, 9), (3, 5), (2, 3), (1, 2))  # levels of fewer places than candidates too
STRIDES = (8, 16, 32, 64)
CONTENT = (45, 60)


def grids():
    return [
        atss.Grid(jnp.arange(h) * float(s), jnp.arange(w) * float(s), 3.0 * s)
        for (h, w), s in zip(SHAPES, STRIDES)
    ]


assign = jax.jit(lambda boxes, valid, content: atss.assign(boxes, valid, grids(), content))


def iou(a, b):
    low, high = np.maximum(a[:2], b[:, :2]), np.minimum(a[2:], b[:, 2:])
    shared = np.maximum(high - low, 0).prod(1)
    return shared / ((a[2:] - a[:2]).prod() + (b[:, 2:] - b[:, :2]).prod(1) - shared)


def reference(boxes, content):
    """Algorithm 1 of the publication, object by object, with all anchors in arrays."""
    centres, sides = [], []
    for (h, w), stride in zip(SHAPES, STRIDES):
        y, x = np.mgrid[:h, :w] * stride
        centres.append(np.stack([x, y], -1).reshape(-1, 2).astype(np.float64))
        sides.append(np.full(h * w, 3.0 * stride))
    starts = np.cumsum([0] + [len(c) for c in centres])
    points, half = np.concatenate(centres), np.concatenate(sides)[:, None] / 2
    anchors = np.concatenate([points - half, points + half], 1)
    best, result = np.zeros(len(points)), np.full(len(points), -1)
    for i, box in enumerate(boxes.astype(np.float64)):
        candidates = []
        for level, start in zip(centres, starts):
            usable = np.flatnonzero((level < content[::-1]).all(1))
            away = ((level[usable] - (box[:2] + box[2:]) / 2) ** 2).sum(1)
            candidates += (start + usable[np.argsort(away, kind="stable")[:9]]).tolist()
        overlap = iou(box, anchors[candidates])
        threshold = overlap.mean() + overlap.std(ddof=1)
        for j, value in zip(candidates, overlap):
            depth = min(points[j] - box[:2], key=float), min(box[2:] - points[j], key=float)
            if value >= threshold and min(depth) > 0.01 and value > best[j]:
                best[j], result[j] = value, i
    return result


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_assignment_equals_the_published_algorithm(seed, count):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (7, 2))
    boxes = np.concatenate(
        [low, low + rng.uniform(1, 40, (7, 2)) ** rng.choice([0.5, 1], (7, 1))], 1
    )
    boxes = np.minimum(boxes, (60, 45, 60, 45)).astype(np.float32)
    found = assign(boxes, jnp.arange(7) < count, jnp.array(CONTENT))
    np.testing.assert_array_equal(found, reference(boxes[:count], CONTENT))


def test_special_objects():
    boxes = jnp.array(
        [
            [10.0, 10.0, 40.0, 40.0],
            [10.0, 10.0, 40.0, 40.0],  # the same again: the first has them
            [17.0, 17.0, 18.0, 18.0],  # smaller than any anchor, on no centre
            [100.0, 100.0, 120.0, 120.0],  # beside the content
            [0.0, 0.0, 0.0, 0.0],
        ]
    )
    found = np.asarray(assign(boxes, jnp.ones(5, bool), jnp.array(CONTENT)))
    assert set(found) == {-1, 0}
    assert (assign(boxes, jnp.zeros(5, bool), jnp.array(CONTENT)) == -1).all()
    assert (assign(boxes, jnp.ones(5, bool), jnp.array([0, 0])) == -1).all()


def test_no_array_of_all_pairs_exists():
    """200,000 anchors and 100 objects: all pairs would take 80 MB a number."""
    rows, columns = 400, 500
    grid = atss.Grid(jnp.arange(rows) * 4.0, jnp.arange(columns) * 4.0, 32.0)
    run = jax.jit(lambda boxes, valid, size: atss.assign(boxes, valid, [grid], size))
    arguments = [
        jax.ShapeDtypeStruct(*x) for x in (((100, 4), "float32"), ((100,), "bool"), ((2,), "int32"))
    ]
    memory = run.lower(*arguments).compile().memory_analysis()
    assert memory.temp_size_in_bytes < rows * columns * 4 * 10
