import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.ops.anchors import default_boxes, retinanet_levels
from jdet.ops.boxes import cxcywh_to_xyxy, pairwise_iou
from jdet.ops.matching import BELOW, BETWEEN, max_iou
from tests.golden import load
from tests.harness import compiled

assign = functools.partial(
    compiled(max_iou.assign, "overlap_of"), positive_iou=0.5, negative_iou=0.4
)


def of_rows(rows):
    """For tests that hand in the overlaps themselves."""
    return rows


def test_equal_torchvision():
    golden = load("matchers")
    overlap, valid = jnp.asarray(golden["iou"]), jnp.ones(8, bool)
    for name, (high, low, low_quality) in {
        "retinanet_05_04_lowq": (0.5, 0.4, "anchor"),
        "rpn_07_03_lowq": (0.7, 0.3, "anchor"),
        "roi_05_05": (0.5, 0.5, "none"),
    }.items():
        found = assign(
            overlap, valid, of_rows, positive_iou=high, negative_iou=low, low_quality=low_quality
        )
        np.testing.assert_array_equal(found, golden[name])


def mmdetection(overlap, low_quality, min_pos_iou=0.0, high=0.5, low=0.4):
    """MMDetection's ``MaxIoUAssigner`` with the whole matrix at once, in numpy."""
    best, index = overlap.max(0), overlap.argmax(0)
    result = np.where(best < low, BELOW, np.where(best < high, BETWEEN, index))
    for i, row in enumerate(overlap):
        if row.max() > 0 and row.max() >= min_pos_iou:
            if low_quality == "object":
                result[row == row.max()] = i
            elif low_quality == "anchor":
                result[row == row.max()] = index[row == row.max()]
    return result


def test_an_object_keeps_its_best_anchor_or_loses_it_to_another():
    overlap = jnp.array([[0.45, 0.9], [0.30, 0.0]])
    for rule, expected in (("object", [1, 0]), ("anchor", [0, 0]), ("none", [BETWEEN, 0])):
        found = assign(overlap, jnp.ones(2, bool), of_rows, low_quality=rule)
        assert found.tolist() == expected


@pytest.mark.parametrize("min_pos_iou", [0.0, 0.7])
@pytest.mark.parametrize("low_quality", max_iou.LOW_QUALITY)
def test_blocks_of_objects_equal_the_whole_matrix(low_quality, min_pos_iou):
    rng = np.random.default_rng(0)
    options = dict(low_quality=low_quality, min_pos_iou=min_pos_iou)
    run = jax.jit(jax.vmap(lambda overlap, valid: assign(overlap, valid, of_rows, **options)))
    overlap = (rng.random((20, 21, 31)) ** 2).round(1).astype(np.float32)  # ties everywhere
    overlap[:, 3] = 0  # an object without overlap chooses nothing
    overlap[:, 5] *= 0.3  # its best IoU may lie below min_pos_iou
    count = rng.integers(1, 22, 20)
    found = run(jnp.asarray(overlap), jnp.arange(21) < count[:, None])
    for i in range(20):
        expected = mmdetection(overlap[i, : count[i]], **options)
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
        lambda ground_truth: assign(
            ground_truth, valid, lambda rows: pairwise_iou(rows, corners), low_quality="object"
        )
    )(jnp.asarray(ground_truth))
    overlap = np.asarray(pairwise_iou(jnp.asarray(ground_truth[:11]), corners))
    np.testing.assert_array_equal(found, mmdetection(overlap, "object"))
    assert set(range(11)) <= set(np.asarray(found))


@pytest.mark.parametrize("low_quality", max_iou.LOW_QUALITY)
def test_without_objects_all_anchors_are_background(low_quality):
    found = assign(jnp.ones([4, 9]), jnp.zeros(4, bool), of_rows, low_quality=low_quality)
    assert (found == BELOW).all()


def test_objects_whose_best_overlap_is_too_small_get_no_anchor():
    """The limit itself counts, and anchors above the upper threshold need no low-quality rule."""
    overlap = jnp.array([[0.3, 0.1, 0.0], [0.0, 0.29, 0.0], [0.0, 0.0, 0.6]])
    options = dict(low_quality="object", min_pos_iou=0.3)
    found = assign(overlap, jnp.ones(3, bool), of_rows, **options)
    assert found.tolist() == [0, BELOW, 2]


@pytest.mark.parametrize("low_quality", [True, "best", None])
def test_unknown_rules_are_refused(low_quality):
    with pytest.raises(ValueError, match=f"low_quality={low_quality!r}; known are object, anchor"):
        assign(jnp.ones([4, 9]), jnp.ones(4, bool), of_rows, low_quality=low_quality)


def test_whole_overlap_matrix_never_exists():
    """200,000 anchors and 100 objects: the largest array holds 8 objects' overlaps."""
    ground_truth = jax.ShapeDtypeStruct((104, 4), jnp.float32)
    corners = jax.ShapeDtypeStruct((200_000, 4), jnp.float32)
    closed = jax.make_jaxpr(
        lambda ground_truth, corners, valid: assign(
            ground_truth, valid, lambda rows: pairwise_iou(rows, corners), low_quality="object"
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
