import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdet.ops import nms as nms_ops
from jdet.ops.boxes import pairwise_iou
from jdet.ops.nms import at_least, nms_by_block
from tests.golden import load
from tests.harness import compiled

nms = jax.jit(nms_ops.nms)
class_wise_nms = compiled(nms_ops.class_wise_nms)
candidates_nms = compiled(nms_ops.candidates_nms)


@functools.partial(jax.jit, static_argnames="block")
def by_block(boxes, valid, threshold, block):
    return nms_by_block(boxes, valid, iou_threshold=threshold, block=block)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("tied", ["", "tied_"])
@pytest.mark.parametrize("block", [0, 64, 1000], ids=["rank", "block of 64", "one block"])
def test_equals_torchvision(threshold, tied, block):
    golden = load("nms")
    order = np.argsort(-golden["scores_tied" if tied else "scores"], kind="stable")
    boxes, valid = jnp.asarray(golden["boxes"][order]), jnp.ones(300, bool)
    keep = by_block(boxes, valid, threshold, block) if block else nms(boxes, valid, threshold)
    expected = golden[f"keep_{tied}{round(threshold * 10):02d}"]
    np.testing.assert_array_equal(order[np.asarray(keep)], expected)


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_classes_equal_torchvision(threshold):
    golden = load("nms")
    scores = np.zeros((300, 5), np.float32)
    scores[np.arange(300), golden["idxs"]] = golden["scores"]
    kept = class_wise_nms(
        jnp.asarray(golden["boxes"]),
        jnp.asarray(scores),
        score_threshold=0.0,
        iou_threshold=threshold,
        pre_nms=300,
        keep=400,
    )
    expected = golden[f"batched_keep_{round(threshold * 10):02d}"]
    n = len(expected)
    assert kept.valid.sum() == n and kept.valid[:n].all()
    np.testing.assert_array_equal(kept.boxes[:n], golden["boxes"][expected])
    np.testing.assert_array_equal(kept.labels[:n], golden["idxs"][expected])
    assert (kept.scores[n:] == 0).all() and (kept.boxes[n:] == 0).all()


def test_identical_boxes_of_different_classes_both_survive():
    scores = jnp.array([[0.9, 0.8], [0.7, 0.6]])
    boxes = jnp.tile(jnp.array([[10.0, 10.0, 50.0, 50.0]]), (2, 1))
    kept = class_wise_nms(
        boxes, scores, score_threshold=0.01, iou_threshold=0.45, pre_nms=2, keep=4
    )
    np.testing.assert_array_equal(kept.labels[:2], [0, 1])
    np.testing.assert_array_equal(kept.valid, [True, True, False, False])


def test_nan_scores_do_not_win():
    boxes = jnp.array([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    scores = jnp.array([[jnp.nan], [0.5]])
    kept = class_wise_nms(boxes, scores, score_threshold=0.01, iou_threshold=0.5, pre_nms=2, keep=2)
    np.testing.assert_array_equal(kept.valid, [True, False])
    np.testing.assert_array_equal(kept.boxes[0], boxes[1])
    for soft in ("none", "linear", "gaussian"):
        kept = from_candidates(boxes, scores[:, 0], jnp.array([0, 0]), soft=soft, keep=2)
        np.testing.assert_array_equal(kept.scores, [0.5, 0])
        np.testing.assert_array_equal(kept.boxes, [boxes[1], [0, 0, 0, 0]])


def test_a_class_can_have_a_limit_of_its_own():
    """Three objects of class 0 and one of class 1; the limit counts survivors, not what they suppress."""
    low = jnp.array([0.0, 1.0, 20.0, 40.0, 60.0])
    boxes = jnp.stack([low, low, low + 10, low + 10], -1)
    scores, labels = jnp.array([0.9, 0.8, 0.7, 0.6, 0.5]), jnp.array([0, 0, 0, 0, 1])
    one_hot = jnp.where(labels[:, None] == jnp.arange(2), scores[:, None], 0)
    for limit, expected in ((0, [0.9, 0.7, 0.6, 0.5]), (2, [0.9, 0.7, 0.5])):
        ours = candidates_nms(
            boxes, scores, labels, iou_threshold=0.4, keep=6, keep_per_class=limit
        )
        dense = class_wise_nms(
            boxes,
            one_hot,
            score_threshold=0.1,
            iou_threshold=0.4,
            pre_nms=5,
            keep=6,
            keep_per_class=limit,
        )
        for kept in (ours, dense):
            np.testing.assert_allclose(kept.scores[kept.valid], expected)
            assert kept.labels[kept.valid].tolist() == [0] * (len(expected) - 1) + [1]


def test_boxes_below_a_side_have_no_score():
    boxes = jnp.array([[0, 0, 4, 9], [0, 0, 9, 3.9], [1, 1, 5, 5.0]])
    np.testing.assert_array_equal(at_least(boxes, jnp.ones(3), 4), [1, 0, 1])
    np.testing.assert_array_equal(at_least(boxes, jnp.ones((3, 2)), 4.0)[:, 1], [1, 0, 1])
    flat = jnp.array([[0, 0, 0, 9.0]])
    assert at_least(flat, jnp.ones(1), 0) == 1


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_candidates_equal_torchvision(threshold):
    """Labels are compared, so no coordinate is moved and the result is exact."""
    golden = load("nms")
    kept = candidates_nms(
        jnp.asarray(golden["boxes"]),
        jnp.asarray(golden["scores"]),
        jnp.asarray(golden["idxs"], jnp.int32),
        iou_threshold=threshold,
        keep=400,
    )
    whole = golden[f"batched_keep_{round(threshold * 10):02d}"]
    n = int(kept.valid.sum())
    assert kept.scores.shape == (400,) and kept.valid[:n].all()
    np.testing.assert_array_equal(kept.boxes[:n], golden["boxes"][whole])
    np.testing.assert_array_equal(kept.labels[:n], golden["idxs"][whole])
    assert (kept.scores[n:] == 0).all() and (kept.boxes[n:] == 0).all()


@functools.partial(jax.jit, static_argnames=("soft", "keep"))
def from_candidates(boxes, scores, labels, soft="none", keep=12):
    return candidates_nms(
        boxes, scores, labels, iou_threshold=0.4, keep=keep, soft=soft, sigma=0.3, min_score=0.05
    )


def candidates(seed, n=40):
    """Crowded boxes of three classes; scores in tenths, so that many are equal, and some are none."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 40, (n, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 30, (n, 2))], -1).astype(np.float32)
    scores = (rng.integers(-2, 11, n) / 10).astype(np.float32)
    return boxes, scores, rng.integers(0, 3, n).astype(np.int32)


@given(st.integers(0, 10**6))
def test_candidates_are_the_best_of_the_greedy_reference(seed):
    """Picked one by one in plain Python, ties and boxes without area included."""
    boxes, scores, labels = candidates(seed)
    overlap = np.asarray(pairwise_iou(boxes, boxes))
    expected = []
    for i in np.argsort(-scores, kind="stable"):
        rivals = [j for j in expected if labels[j] == labels[i]]
        if scores[i] > 0 and not (overlap[i, rivals] > 0.4).any():
            expected.append(int(i))
    kept = from_candidates(boxes, scores, labels)
    n = min(len(expected), 12)
    assert kept.valid.tolist() == [True] * n + [False] * (12 - n)
    np.testing.assert_array_equal(kept.boxes[:n], boxes[expected[:n]])
    np.testing.assert_array_equal(kept.scores[:n], scores[expected[:n]])
    np.testing.assert_array_equal(kept.labels[:n], labels[expected[:n]])
    assert (kept.boxes[n:] == 0).all() and (kept.scores[n:] == 0).all()


@pytest.mark.parametrize("soft", ["linear", "gaussian"])
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_soft_nms_equals_its_definition(soft, seed):
    """Bodla et al. 2017, Fig. 2, in plain Python."""
    boxes, scores, labels = candidates(seed)
    overlap = np.asarray(pairwise_iou(boxes, boxes), np.float32)
    left, expected = np.maximum(scores, 0), []
    while len(expected) < 12 and left.max() > 0:
        best = int(left.argmax())
        expected.append((best, left[best]))
        for i in np.flatnonzero(labels == labels[best]):
            iou = overlap[best, i]
            if soft == "gaussian":
                left[i] *= np.exp(-(iou**2) / np.float32(0.3))
            elif iou > 0.4:
                left[i] *= 1 - iou
            if left[i] < 0.05:
                left[i] = 0
        left[best] = 0
    kept = from_candidates(boxes, scores, labels, soft=soft)
    n = len(expected)
    assert kept.valid.sum() == n
    index, best = [i for i, _ in expected], [s for _, s in expected]
    np.testing.assert_array_equal(kept.boxes[:n], boxes[index])
    np.testing.assert_allclose(kept.scores[:n], best, rtol=1e-5)
    assert (np.diff(kept.scores[:n]) <= 1e-7).all()


@pytest.mark.parametrize("soft", ["linear", "gaussian"])
def test_soft_nms_drops_only_boxes_that_lost_score(soft):
    """A low score is no reason by itself, whatever else is there of its class."""
    boxes = jnp.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [20, 20, 30, 30.0]])
    scores, labels = jnp.array([0.2, 0.06, 0.03, 0.03]), jnp.array([0, 0, 0, 1])
    kept = from_candidates(boxes, scores, labels, soft=soft)
    np.testing.assert_allclose(kept.scores[:4], [0.2, 0.03, 0.03, 0], rtol=1e-6)
    np.testing.assert_array_equal(kept.boxes[1:3], boxes[2:])


def test_blocks_of_ranks_give_what_single_ranks_do():
    """Crowded sets of other lengths than blocks; whole numbers, so that overlaps are exact."""
    rng = np.random.default_rng(0)
    low = rng.integers(0, 12, (4, 90, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 12, (4, 90, 2))], -1).astype(np.float32)
    # A chain in which each box overlaps its neighbours alone: every other one is kept.
    left = 4.0 * np.arange(90, dtype=np.float32)
    boxes[0] = np.stack([left, 0 * left, left + 10, 0 * left + 10], -1)
    valid = np.arange(90) < np.array([[90], [0], [32], [61]])
    for threshold in (0.4, 0.5):
        expected = nms(boxes, valid, threshold)  # on a CPU by rank
        np.testing.assert_array_equal(by_block(boxes, valid, threshold, 32), expected)
    assert by_block(boxes, valid, 0.4, 32)[0].tolist() == [True, False] * 45


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_survivors_do_not_overlap_and_the_rest_do(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (3, 25, 2))
    boxes = jnp.asarray(
        np.concatenate([low, low + rng.uniform(1, 40, (3, 25, 2))], -1), jnp.float32
    )
    valid = jnp.asarray(np.arange(25) < rng.integers(0, 26, (3, 1)))
    keep = np.asarray(nms(boxes, valid, 0.4))
    overlap = np.asarray(pairwise_iou(boxes, boxes))
    for k, o, v in zip(keep, overlap, np.asarray(valid)):
        for i in range(25):
            earlier = np.flatnonzero(k[:i])
            assert k[i] == (v[i] and not (o[i, earlier] > 0.4).any())
