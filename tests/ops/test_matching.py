import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdet.ops.anchors import default_boxes, retinanet_levels
from jdet.ops.boxes import cxcywh_to_xyxy, pairwise_iou
from jdet.ops.matching import (
    BELOW,
    BETWEEN,
    LOW_QUALITY,
    MIN_OVERLAP,
    bipartite_then_threshold,
    by_thresholds,
)
from tests.golden import load

match = jax.jit(bipartite_then_threshold)


def caffe_matching(overlap, threshold=0.5):
    """Caffe SSD's MatchBBox, literally: one global maximum at a time."""
    num_objects, num_boxes = overlap.shape
    result = np.full(num_boxes, -1)
    free = set(range(num_objects))
    while free:
        best = (-1, -1, -1.0)
        for i in range(num_boxes):
            for j in sorted(free):
                if result[i] == -1 and overlap[j, i] > MIN_OVERLAP and overlap[j, i] > best[2]:
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
    overlap, valid = jnp.asarray(golden["iou"]), jnp.ones(8, bool)
    found = match(overlap, valid)
    np.testing.assert_array_equal(np.where(found.matched, found.index, -1), golden["ssd_05"])
    for name, arguments in {
        "retinanet_05_04_lowq": (0.5, 0.4, "anchor"),
        "rpn_07_03_lowq": (0.7, 0.3, "anchor"),
        "roi_05_05": (0.5, 0.5, "none"),
    }.items():
        found = by_thresholds(overlap, valid, lambda rows: rows, *arguments)
        np.testing.assert_array_equal(found, golden[name])


def max_iou(overlap, high, low, low_quality):
    """The whole matrix at once, in numpy."""
    best, index = overlap.max(0), overlap.argmax(0)
    result = np.where(best < low, BELOW, np.where(best < high, BETWEEN, index))
    rows = overlap.max(1, keepdims=True)
    for i, row in enumerate((overlap == rows) & (rows > 0)):  # MMDetection: object by object
        if low_quality == "object":
            result = np.where(row, i, result)
        elif low_quality == "anchor":
            result = np.where(row, index, result)
    return result


def test_an_object_keeps_its_best_anchor_or_loses_it_to_another():
    overlap = jnp.array([[0.45, 0.9], [0.30, 0.0]])
    for rule, expected in (("object", [1, 0]), ("anchor", [0, 0]), ("none", [BETWEEN, 0])):
        found = by_thresholds(overlap, jnp.ones(2, bool), lambda rows: rows, 0.5, 0.4, rule)
        assert found.tolist() == expected


@pytest.mark.parametrize("low_quality", LOW_QUALITY)
def test_thresholds_in_blocks_equal_the_whole_matrix(low_quality):
    rng = np.random.default_rng(0)
    assign = jax.jit(
        lambda overlap, valid: by_thresholds(
            overlap, valid, lambda rows: rows, 0.5, 0.4, low_quality
        )
    )
    overlap = (rng.random((20, 21, 31)) ** 2).round(1).astype(np.float32)  # ties everywhere
    overlap[:, 3] = 0  # an object without overlap chooses nothing
    count = rng.integers(1, 22, 20)
    found = jax.vmap(assign)(jnp.asarray(overlap), jnp.arange(21) < count[:, None])
    for i in range(20):
        expected = max_iou(overlap[i, : count[i]], 0.5, 0.4, low_quality)
        np.testing.assert_array_equal(found[i], expected)


def test_every_object_finds_its_best_anchors_among_many():
    rng = np.random.default_rng(1)
    levels = retinanet_levels((8, 16, 32, 64, 128))
    anchors = default_boxes(levels, [(n, n) for n in (40, 20, 10, 5, 3)])
    corners = cxcywh_to_xyxy(jnp.asarray(anchors))
    low = rng.uniform(0, 250, (13, 2))
    ground_truth = np.concatenate([low, low + rng.uniform(1, 70, (13, 2))], 1).astype(np.float32)
    valid = jnp.arange(13) < 11
    found = jax.jit(
        lambda ground_truth: by_thresholds(
            ground_truth, valid, lambda rows: pairwise_iou(rows, corners), 0.5, 0.4, "object"
        )
    )(jnp.asarray(ground_truth))
    overlap = np.asarray(pairwise_iou(jnp.asarray(ground_truth[:11]), corners))
    np.testing.assert_array_equal(found, max_iou(overlap, 0.5, 0.4, "object"))
    assert set(range(11)) <= set(np.asarray(found))


def test_thresholds_without_objects_are_all_background():
    overlap = jnp.ones([4, 9])
    found = by_thresholds(overlap, jnp.zeros(4, bool), lambda rows: rows, 0.5, 0.4, True)
    assert (found == BELOW).all()


def test_whole_overlap_matrix_never_exists():
    """200,000 anchors and 100 objects: the largest array holds 8 objects' overlaps."""
    ground_truth = jax.ShapeDtypeStruct((104, 4), jnp.float32)
    corners = jax.ShapeDtypeStruct((200_000, 4), jnp.float32)
    closed = jax.make_jaxpr(
        lambda ground_truth, corners, valid: by_thresholds(
            ground_truth, valid, lambda rows: pairwise_iou(rows, corners), 0.5, 0.4, "object"
        )
    )(ground_truth, corners, jax.ShapeDtypeStruct((104,), bool))

    def inner(jaxpr):
        for equation in jaxpr.eqns:
            for value in equation.params.values():
                body = getattr(value, "jaxpr", value)
                if hasattr(body, "eqns"):
                    yield body

    def largest(jaxpr):
        sizes = [v.aval.size for e in jaxpr.eqns for v in e.outvars]
        return max([*sizes, *map(largest, inner(jaxpr))])

    assert largest(closed.jaxpr) == 8 * 200_000
