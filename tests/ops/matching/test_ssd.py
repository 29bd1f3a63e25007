import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jdet.ops.matching import ssd
from tests.golden import load

match = jax.jit(ssd.match)


def caffe_matching(overlap, threshold=0.5):
    """Caffe SSD's MatchBBox, literally: one global maximum at a time."""
    num_objects, num_boxes = overlap.shape
    result = np.full(num_boxes, -1)
    free = set(range(num_objects))
    while free:
        best = (-1, -1, -1.0)
        for i in range(num_boxes):
            for j in sorted(free):
                if result[i] == -1 and overlap[j, i] > ssd.MIN_OVERLAP and overlap[j, i] > best[2]:
                    best = (i, j, overlap[j, i])
        if best[0] == -1:
            break
        result[best[0]] = best[1]
        free.remove(best[1])
    for i in range(num_boxes):
        if result[i] == -1 and overlap[:, i].max() >= threshold:
            result[i] = overlap[:, i].argmax()
    return result


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 6), st.booleans())
def test_equals_the_sequential_rule(seed, objects, tied):
    rng = np.random.default_rng(seed)
    overlap = rng.random((6, 17)).astype(np.float32) * rng.choice([0, 1], (6, 17))
    if tied:
        overlap = np.round(overlap * 5) / 5
    valid = np.arange(6) < objects
    found = match(jnp.asarray(overlap), jnp.asarray(valid))
    ours = np.where(found.matched, found.index, -1)
    np.testing.assert_array_equal(ours, caffe_matching(overlap[:objects]))


def test_two_objects_never_share_their_box():
    overlap = jnp.array([[0.4, 0.3, 0.0], [0.45, 0.2, 0.1]])
    found = match(overlap, jnp.array([True, True]))
    np.testing.assert_array_equal(np.where(found.matched, found.index, -1), [1, 0, -1])


def test_displaced_object_does_not_take_what_another_will_need():
    # Object 0 loses box 0 to object 1 only if object 1 does not find box 1; it does not: 2 has it.
    overlap = jnp.array([[0.40, 0.00, 0.30], [0.41, 0.42, 0.00], [0.00, 0.43, 0.00]])
    found = match(overlap, jnp.array([True, True, True]))
    np.testing.assert_array_equal(np.where(found.matched, found.index, -1), [1, 2, 0])


def test_without_objects_nothing_matches():
    found = match(jnp.ones([4, 9]), jnp.zeros(4, bool))
    assert not found.matched.any()
    assert (found.overlap == 0).all()


def test_equal_torchvision():
    golden = load("matchers")
    found = match(jnp.asarray(golden["iou"]), jnp.ones(8, bool))
    np.testing.assert_array_equal(np.where(found.matched, found.index, -1), golden["ssd_05"])
