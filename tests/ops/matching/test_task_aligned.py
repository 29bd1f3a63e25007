import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jdet.ops.matching import BELOW, task_aligned
from tests.ops.matching.predicted import depths, draw, overlaps

OBJECTS = 6
run = jax.jit(
    lambda boxes, labels, valid, places, otherwise: task_aligned.assign(
        boxes, labels, valid, places, otherwise, count=5, alpha=0.5, beta=3.0
    )
)


def reference(boxes, labels, places, otherwise, count=5, alpha=0.5, beta=3.0):
    """Object by object, with all places in arrays, in double precision (TOOD, sec. 3.2)."""
    scores = 1 / (1 + np.exp(-np.asarray(places.logits, np.float64)))
    usable, total = np.asarray(places.usable), len(places.centres)
    iou, depth = overlaps(boxes, places.boxes), depths(boxes, places.centres)
    aligned = scores[:, labels].T ** alpha * iou**beta * usable
    chosen = np.zeros((len(boxes), total), bool)
    for i, row in enumerate(aligned):
        for place in np.argsort(-row, kind="stable")[:count]:
            chosen[i, place] = row[place] > 0 and depth[i, place] > 0.01
    match, quality = np.full(total, BELOW), np.zeros(total)
    for place in np.flatnonzero(chosen.any(0)):
        match[place] = np.argmax(np.where(chosen[:, place], iou[:, place], -1))
    for i in range(len(boxes)):
        own = match == i
        if own.any():
            quality[own] = aligned[i, own] / aligned[i, own].max() * iou[i, own].max()
    without = [i for i in range(len(boxes)) if not (match == i).any()]
    for place in np.flatnonzero((match == BELOW) & usable & np.isin(otherwise, without)):
        match[place] = otherwise[place]
        quality[place] = iou[otherwise[place], place]
    return match, quality


@given(st.integers(0, 10**6), st.integers(0, OBJECTS))
def test_assignment_equals_the_rule_object_by_object(seed, count):
    boxes, labels, places = draw(seed, OBJECTS)
    rng = np.random.default_rng(seed)
    # An object that no prediction touches, which has the other assignment alone.
    if seed % 2:
        boxes[0] = (200, 200, 220, 220)
    otherwise = rng.integers(-1, max(count, 1), len(places.centres)) if count else None
    otherwise = np.full(len(places.centres), BELOW) if otherwise is None else otherwise
    found = run(boxes, labels, jnp.arange(OBJECTS) < count, places, jnp.asarray(otherwise))
    match, quality = reference(boxes[:count], labels[:count], places, otherwise)
    np.testing.assert_array_equal(found.match, match)
    np.testing.assert_allclose(found.quality, quality, rtol=1e-4, atol=1e-6)
    if seed % 2 and count:
        free = np.asarray(places.usable) & (otherwise == 0)
        assert (match[free] != BELOW).all()


def test_tiny_overlaps_still_rank():
    """Their third power is below the smallest float32."""
    boxes, labels, places = draw(0, OBJECTS)
    total = len(places.centres)
    sides = jnp.zeros(total).at[:2].set(jnp.array([2.0**-14, 2.0**-13]))
    predicted = jnp.ones((total, 4)).at[:, 2:].add(sides[:, None])
    places = places._replace(
        logits=jnp.zeros_like(places.logits),
        boxes=predicted,
        centres=jnp.full((total, 2), 500.0),
        usable=jnp.ones(total, bool),
    )
    boxes[0] = (0, 0, 1000, 1000)
    nobody = jnp.full(total, BELOW)
    found = run(boxes, labels, jnp.arange(OBJECTS) < 1, places, nobody)
    assert found.match.tolist() == [0, 0] + [BELOW] * (total - 2)
    np.testing.assert_allclose(found.quality[1] / found.quality[0], 4.0**3, rtol=1e-4)
