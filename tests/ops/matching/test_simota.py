import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jdet.ops.matching import BELOW, Places, simota
from tests.ops.matching.predicted import depths, draw, overlaps

OBJECTS = 6
run = jax.jit(lambda *arrays: simota.assign(*arrays, count=4, radius=1.5))


def reference(boxes, labels, places, count=4, radius=1.5, weight=3.0):
    """YOLOX's ``SimOTA``, object by object in double precision."""
    usable, total = np.asarray(places.usable), len(places.centres)
    match = np.full(total, BELOW)
    if not len(boxes):
        return match
    logits = np.asarray(places.logits, np.float64)
    centres, strides = (np.asarray(x, np.float64) for x in (places.centres, places.strides))
    middle = (boxes[:, :2] + boxes[:, 2:]).astype(np.float64) / 2
    within = depths(boxes, centres) > 0.01
    near = np.abs(centres - middle[:, None]).max(-1) < radius * strides
    places_of = np.flatnonzero(usable & (within | near).any(0))
    if not len(places_of):
        return match
    one_hot = np.eye(logits.shape[1])[labels][:, None]
    p = 1 / (1 + np.exp(-logits))[None]
    classes = -(one_hot * np.log(p) + (1 - one_hot) * np.log(1 - p)).sum(-1)
    iou = overlaps(boxes, places.boxes)
    cost = classes - weight * np.log(iou + 1e-8) + 1e5 * ~(within & near)
    taken = np.zeros((len(boxes), total), bool)
    for i in range(len(boxes)):
        best = np.sort(iou[i, places_of])[::-1][:count]
        wanted = max(int(best.sum()), 1)
        order = places_of[np.argsort(cost[i, places_of], kind="stable")]
        taken[i, order[:wanted]] = True
    for place in np.flatnonzero(taken.any(0)):
        several = taken[:, place].sum() > 1
        match[place] = np.argmin(cost[:, place]) if several else np.argmax(taken[:, place])
    return match


@given(st.integers(0, 10**6), st.integers(0, OBJECTS))
def test_assignment_equals_the_rule_object_by_object(seed, count):
    boxes, labels, places = draw(seed, OBJECTS)
    found = run(boxes, labels, jnp.arange(OBJECTS) < count, places)
    np.testing.assert_array_equal(found, reference(boxes[:count], labels[:count], places))
    if count:
        # Rows that are no objects take part in nothing.
        assert (found >= 0).any() and set(np.asarray(found)) <= {BELOW, *range(count)}


def test_a_contested_place_goes_to_whom_it_costs_least():
    """Of all objects: also to one that has cheaper places and did not choose it (YOLOX's code)."""
    boxes = jnp.array([[0.0, 0, 20, 20], [0, 0, 20, 18], [0, 0, 20, 19]])
    predicted = jnp.array([[0.0, 0, 20, 19], [0, 0, 20, 19.1]])
    places = Places(
        jnp.zeros((2, 1)), predicted, jnp.full((2, 2), 10.0), jnp.full(2, 8.0), jnp.ones(2, bool)
    )
    labels, valid = jnp.zeros(3, int), jnp.ones(3, bool)
    found = jax.jit(lambda *arrays: simota.assign(*arrays, count=1))(boxes, labels, valid, places)
    # The first object prefers the second place, the others the first.
    np.testing.assert_array_equal(found, [2, 0])
    np.testing.assert_array_equal(
        found, reference(np.asarray(boxes), np.zeros(3, int), places, 1, 2.5)
    )
