"""Costs, assignment and losses of sets against a plain reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from jdet.detectors.set_loss import SetLoss
from jdet.ops.matching import BELOW

LOSS = SetLoss(
    cls_weight=2.0,
    l1_weight=5.0,
    giou_weight=2.0,
    focal_alpha=0.25,
    focal_gamma=2.0,
    matcher="device",
)
SIZES = np.array([[48, 60], [64, 33]], np.int32)


def giou(a, b):
    """Of two boxes."""
    inner = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inner
    hull = np.prod(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]))
    return inner / union - (hull - union) / hull


def reference(logits, corners, ground_truth, labels, size):
    """Cost matrix, assignment and the three losses of one set (MMDetection's formulas), pair by pair."""
    p, eps = 1 / (1 + np.exp(-logits.astype(float))), 1e-12
    positive = -np.log(p + eps) * 0.25 * (1 - p) ** 2
    negative = -np.log(1 - p + eps) * 0.75 * p**2
    unit = size[[1, 0, 1, 0]]
    costs = np.zeros((len(ground_truth), len(corners)))
    for i, j in np.ndindex(costs.shape):
        focal = positive[j, labels[i]] - negative[j, labels[i]]
        l1 = np.abs(corners[j] / unit - ground_truth[i] / unit).sum()
        costs[i, j] = 2 * focal + 5 * l1 - 2 * giou(ground_truth[i], corners[j])
    rows, columns = linear_sum_assignment(costs)
    cls = negative.sum()
    for i, j in zip(rows, columns):
        cls += positive[j, labels[i]] - negative[j, labels[i]]
    l1 = sum(
        np.abs(corners[j] / unit - ground_truth[i] / unit).sum() for i, j in zip(rows, columns)
    )
    overlap = sum(1 - giou(ground_truth[i], corners[j]) for i, j in zip(rows, columns))
    match = np.full(len(corners), BELOW)
    match[columns] = rows
    return costs, match, (2 * cls, 5 * l1, 2 * overlap)


def some(rng, *shape):
    low = rng.uniform(-5, 40, (*shape, 2))
    return np.concatenate([low, low + rng.uniform(1, 30, low.shape)], -1).astype(np.float32)


@jax.jit
def run(logits, corners, ground_truth, labels, valid):
    given = ground_truth, labels
    match = LOSS.match(logits, corners, *given, valid, SIZES)

    def total(logits, corners):
        terms = LOSS.terms(logits, corners, match[0], *given, SIZES)
        return sum(mean.total for mean in terms.values()), terms

    found = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(logits[0], corners[0])
    return LOSS.costs(logits, corners, *given, SIZES), match, found


def test_costs_assignment_and_losses_equal_the_reference():
    """Three stages in one call, of two images with four objects and two."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (3, 2, 9, 5)).astype(np.float32)
    corners, ground_truth = some(rng, 3, 2, 9), some(rng, 2, 6)
    labels = rng.integers(0, 5, (2, 6)).astype(np.int32)
    valid = np.array([[1, 0, 1, 1, 0, 1], [0, 0, 1, 0, 1, 0]], bool)
    costs, match, ((_, terms), _) = run(logits, corners, ground_truth, labels, valid)
    sums = np.zeros(3)
    for stage, image in np.ndindex(3, 2):
        real = np.flatnonzero(valid[image])
        given = ground_truth[image][real], labels[image][real], SIZES[image]
        expected = reference(logits[stage, image], corners[stage, image], *given)
        np.testing.assert_allclose(costs[stage, image][real], expected[0], rtol=1e-4, atol=1e-4)
        rows = np.where(expected[1] < 0, BELOW, real[expected[1]])
        np.testing.assert_array_equal(match[stage, image], rows)
        if stage == 0:
            sums += expected[2]
    found = [terms[name].total for name in ("cls", "loc", "giou")]
    np.testing.assert_allclose(found, sums, rtol=1e-4)
    assert {float(mean.weight) for mean in terms.values()} == {6.0}


def test_degenerate_predictions_and_objects_leave_finite_gradients():
    """Boxes without area, inverted, far away, or no numbers; logits beyond any probability."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 100, (3, 2, 9, 5)).astype(np.float32)
    corners, ground_truth = some(rng, 3, 2, 9), some(rng, 2, 6)
    labels, valid = np.zeros((2, 6), np.int32), np.ones((2, 6), bool)
    corners[:, :, 0, 2:] = corners[:, :, 0, :2]
    corners[:, :, 1] = corners[:, :, 1][..., [2, 3, 0, 1]]
    corners[:, :, 2] *= 1e8
    corners[:, 0, 3], corners[:, 1, 3] = np.nan, np.inf
    ground_truth[0, 0] = ground_truth[0, 1]
    costs, match, ((total, terms), gradients) = run(logits, corners, ground_truth, labels, valid)
    assert not np.isfinite(costs[:, :, :, 3]).any() and (match[:, :, 3] == BELOW).all()
    assert (np.asarray(match) != BELOW).sum() == 3 * 2 * 6
    assert np.isfinite(total) and all(np.isfinite(x).all() for x in gradients)
    forced = np.full((2, 9), BELOW, np.int32)
    forced[:, :3] = [0, 1, 2]  # without area, inverted, far away

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def loss(logits, corners):
        terms = LOSS.terms(logits, corners, forced, ground_truth, labels, SIZES)
        return sum(mean.total for mean in terms.values())

    total, gradients = loss(logits[0], corners[0])
    assert np.isfinite(total) and all(np.isfinite(x).all() for x in gradients)
    assert all(np.abs(gradients[1][:, i]).max() > 0 for i in range(3))


def test_more_objects_than_proposals():
    """Every proposal learns an object, no two the same one."""
    rng = np.random.default_rng(2)
    logits, corners = rng.normal(size=(1, 1, 3, 5)).astype(np.float32), some(rng, 1, 1, 3)
    ground_truth, labels = some(rng, 1, 6), np.zeros((1, 6), np.int32)
    match = LOSS.match(logits, corners, ground_truth, labels, np.ones((1, 6), bool), SIZES[:1])
    assert len(set(np.asarray(match).ravel().tolist()) - {BELOW}) == 3


def test_without_objects_all_is_background():
    logits, corners = (np.ones((3, 2, 9, n), np.float32) for n in (5, 4))
    nothing = np.zeros((2, 6, 4), np.float32), np.zeros((2, 6), np.int32), np.zeros((2, 6), bool)
    _, match, ((_, terms), gradients) = run(logits, corners, *nothing)
    assert match.shape == (3, 2, 9) and (match == BELOW).all()
    assert terms["cls"].total > 0 and terms["loc"].total == terms["giou"].total == 0
    assert all(mean.weight == 0 for mean in terms.values()) and (gradients[1] == 0).all()


def test_no_room_for_objects():
    shapes = ((3, 2, 9, 5), (3, 2, 9, 4), (2, 0, 4)), ((2, 0), jnp.int32), ((2, 0), bool)
    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes[0]]
    given += [jax.ShapeDtypeStruct(*shape) for shape in shapes[1:]]
    match = jax.eval_shape(lambda *x: LOSS.match(*x, SIZES), *given)
    assert (match.shape, match.dtype) == ((3, 2, 9), jnp.int32)
    one = jax.ShapeDtypeStruct((2, 9), jnp.int32)
    terms = jax.eval_shape(lambda *x: LOSS.terms(*x, SIZES), *_of_one(given), one, *given[2:4])
    assert all(mean.total.shape == () for mean in terms.values())


def _of_one(given):
    return [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in given[:2]]
