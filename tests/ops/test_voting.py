import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdet.ops.nms import class_wise_nms
from jdet.ops.voting import KINDS, cluster, merge
from tests.harness import compiled

COUNT = 24


def iou(a, b, offset):
    width = np.minimum(a[2], b[:, 2]) - np.maximum(a[0], b[:, 0]) + offset
    height = np.minimum(a[3], b[:, 3]) - np.maximum(a[1], b[:, 1]) + offset
    both = np.maximum(width, 0) * np.maximum(height, 0)
    areas = [(x[..., 2] - x[..., 0] + offset) * (x[..., 3] - x[..., 1] + offset) for x in (a, b)]
    return both / np.maximum(areas[0] + areas[1] - both, 1e-30)


def reference(boxes, scores, labels, *, kind, keep, threshold, offset, score_threshold):
    """The published procedure, one class and one box at a time."""
    found = []
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        mine = mine[np.argsort(-scores[mine], kind="stable")]
        while len(mine):
            top, values = mine[0], iou(boxes[mine[0]], boxes[mine], offset)
            joins = values > threshold if kind == "nms" else values >= threshold
            joins[0] = True
            members, values = mine[joins], values[joins]
            box = boxes[top]
            if kind != "nms":
                box = np.average(boxes[members], axis=0, weights=scores[members])
            found.append((scores[top], label, *box))
            if kind == "soft_voting":
                for member, value in zip(members[1:], values[1:]):
                    score = scores[member] * (1 - value)
                    if score >= score_threshold:
                        found.append((score, label, *boxes[member]))
            mine = mine[~joins]
    return sorted(found, key=lambda row: -row[0])[:keep]


@functools.partial(jax.jit, static_argnames=("kind", "keep"))
def run(boxes, scores, labels, valid, threshold, offset, score_threshold, kind, keep):
    return merge(
        boxes,
        scores,
        labels,
        valid,
        kind=kind,
        keep=keep,
        iou_threshold=threshold,
        pixel_offset=offset,
        score_threshold=score_threshold,
    )


def draw(seed, count, classes=3):
    """Boxes in a few heaps, distinct scores, so that no order is left open."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(20, 80, (3, 2))[rng.integers(0, 3, COUNT)] + rng.normal(0, 4, (COUNT, 2))
    sides = rng.uniform(8, 30, (COUNT, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], 1).astype(np.float32)
    scores = (rng.permutation(COUNT) + 1).astype(np.float32) / (COUNT + 1)
    return (
        boxes,
        scores,
        rng.integers(0, classes, COUNT).astype(np.int32),
        rng.permutation(COUNT) < count,
    )


@pytest.mark.parametrize("kind", KINDS)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, COUNT),
    threshold=st.sampled_from([0.3, 0.45, 0.7]),
    offset=st.sampled_from([0.0, 1.0]),
)
def test_equals_the_procedure_box_by_box(kind, seed, count, threshold, offset):
    boxes, scores, labels, valid = draw(seed, count)
    batch = [np.stack([x, y]) for x, y in zip((boxes, scores, labels, valid), draw(seed + 1, 5))]
    found = run(*batch, threshold, offset, 0.05, kind=kind, keep=20)
    expected = reference(
        *(x[valid] for x in (boxes, scores, labels)),
        kind=kind,
        keep=20,
        threshold=threshold,
        offset=offset,
        score_threshold=0.05,
    )
    assert int(found.valid[0].sum()) == len(expected)
    for i, (score, label, *box) in enumerate(expected):
        np.testing.assert_allclose(found.scores[0, i], score, rtol=1e-5)
        assert found.labels[0, i] == label
        np.testing.assert_allclose(found.boxes[0, i], box, rtol=1e-4, atol=1e-3)
    assert not np.asarray(found.boxes[0, len(expected) :]).any()


def test_voting_by_hand():
    """Two overlapping boxes of a class, one of another class in the same place, one far away."""
    boxes = np.array(
        [[[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 10], [50, 50, 60, 60]]], np.float32
    )
    scores = np.array([[0.5, 0.25, 0.4, 0.3]], np.float32)
    labels = np.array([[0, 0, 1, 0]], np.int32)
    valid = np.ones((1, 4), bool)
    found = run(boxes, scores, labels, valid, 0.45, 0.0, 0.01, kind="voting", keep=8)
    np.testing.assert_allclose(found.scores[0, :4], [0.5, 0.4, 0.3, 0], atol=1e-6)
    np.testing.assert_array_equal(found.labels[0, :3], [0, 1, 0])
    np.testing.assert_allclose(found.boxes[0, 0], [0, 0, 10, (0.5 * 10 + 0.25 * 8) / 0.75], 1e-5)
    # IoU 0.8: the member stays with a fifth of its score, unless that is below the threshold.
    found = run(boxes, scores, labels, valid, 0.45, 0.0, 0.049, kind="soft_voting", keep=8)
    np.testing.assert_allclose(found.scores[0, :4], [0.5, 0.4, 0.3, 0.05], atol=1e-6)
    np.testing.assert_allclose(found.boxes[0, 3], [0, 0, 10, 8])
    found = run(boxes, scores, labels, valid, 0.45, 0.0, 0.051, kind="soft_voting", keep=8)
    assert found.valid.sum() == 3


def test_the_pixel_offset_decides():
    boxes = np.array([[[0, 0, 1, 1], [1, 0, 2, 1]]], np.float32)  # neighbours; pixels 0–1 and 1–2
    labels, valid = np.zeros((1, 2), np.int32), np.ones((1, 2), bool)
    owners = [
        cluster(boxes, labels, valid, iou_threshold=0.3, pixel_offset=offset)[0].tolist()
        for offset in (0.0, 1.0)  # IoU 0 / 2 and 2 / 6
    ]
    assert owners == [[0, 1], [0, 0]]


def test_boxes_without_area_end_up_in_clusters_of_their_own():
    boxes, labels, valid = (
        jnp.zeros((1, 3, 4)),
        jnp.zeros((1, 3), jnp.int32),
        jnp.ones((1, 3), bool),
    )
    owner = cluster(boxes, labels, valid, iou_threshold=0.45, at_threshold=False)
    np.testing.assert_array_equal(owner, [[0, 1, 2]])


@given(st.integers(0, 10**6))
def test_nms_again_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (30, 2))
    boxes = np.concatenate([low, low + rng.uniform(4, 30, (30, 2))], 1).astype(np.float32)
    scores = rng.uniform(0, 1, (30, 3)).astype(np.float32)
    once = compiled(class_wise_nms)(
        boxes, scores, score_threshold=0.01, iou_threshold=0.45, pre_nms=30, keep=40
    )
    once = jax.device_get(once)
    alone = jax.tree.map(lambda x: x[None], once)
    again = run(
        alone.boxes,
        alone.scores,
        alone.labels,
        alone.valid,
        0.45,
        0.0,
        0.0,
        kind="nms",
        keep=40,
    )
    jax.tree.map(np.testing.assert_array_equal, alone, again)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind='vote'; known are voting, soft_voting, nms"):
        run(*(x[None] for x in draw(0, 3)), 0.45, 0.0, 0.0, kind="vote", keep=8)
