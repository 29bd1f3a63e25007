import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.detectors.rois import hardest_apart, match_candidates, take_rois
from jdet.ops.boxes import pairwise_iou
from jdet.ops.sampling import Sample, balanced_sample

OBJECTS = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 0, 0]], np.float32)
LABELS, THERE = np.array([3, 1, 4, 0]), np.array([True, True, True, False])
PROPOSALS = np.array(
    [[0, 0, 10, 6.5], [20, 20, 40, 29], [50, 50, 60, 60], [20, 20, 40, 31], [0, 0, 10, 10]],
    np.float32,
)


@pytest.fixture(scope="module")
def matched():
    """Candidates of two images by threshold; the second has no objects, and its last proposal is none."""

    @functools.partial(jax.jit, static_argnums=0)
    def run(iou):
        two = functools.partial(jnp.tile, reps=(2, 1))
        exists = jnp.array([[True] * 5, [True] * 4 + [False]])
        valid = jnp.stack([jnp.asarray(THERE), jnp.zeros(4, bool)])
        boxes, objects = two(PROPOSALS).reshape(2, 5, 4), two(OBJECTS).reshape(2, 4, 4)
        labels = jnp.tile(jnp.asarray(LABELS, jnp.int32), (2, 1))
        return match_candidates(boxes, exists, objects, labels, valid, iou=iou, low_quality="none")

    return run


def test_objects_are_candidates_that_belong_to_themselves(matched):
    """The first two objects have the same box; a proposal there belongs to the first of them."""
    found = matched(0.5)
    assert found.match[0].tolist() == [0, 1, 2, 0, 0, 0, 0, 2, 0]
    assert found.labels[0].tolist() == [4, 2, 5, 0, 4, 0, 0, 5, 4]
    assert found.positive[0].tolist() == [True] * 3 + [False, True, False, False, True, True]
    assert found.valid[0].tolist() == [True, True, True, False] + [True] * 5
    assert found.negative[0].tolist() == [False] * 5 + [True, True, False, False]
    # Without objects all proposals that exist are background.
    assert not found.positive[1].any() and (found.labels[1] == 0).all()
    assert found.negative[1].tolist() == [False] * 4 + [True] * 4 + [False]
    stricter = matched(0.6)
    assert stricter.positive[0].tolist() == [True] * 3 + [False, True, False, False, False, True]


def test_slots_hold_boxes_targets_and_labels(matched):
    """An object, a proposal of another, background, a filler."""
    slots = Sample(
        index=jnp.array([[1, 7, 6, 3]] * 2),
        positive=jnp.array([[True, True, False, False], [False] * 4]),
        valid=jnp.array([[True, True, True, False], [False, True, True, False]]),
    )
    rois = take_rois(matched(0.5), slots, jnp.tile(OBJECTS, (2, 1)).reshape(2, 4, 4))
    np.testing.assert_array_equal(rois.boxes[0, :3], [OBJECTS[1], PROPOSALS[3], PROPOSALS[2]])
    np.testing.assert_array_equal(rois.target[0, :3], [OBJECTS[1], OBJECTS[2], PROPOSALS[2]])
    assert rois.labels[0].tolist() == [2, 5, 0, 0] and rois.match[0].tolist() == [1, 2, 0, 0]
    assert rois.is_object[0].tolist() == [True, False, False, False]
    assert (rois.labels[1] == 0).all() and not rois.is_object[1].any()
    np.testing.assert_array_equal(rois.target[1], rois.boxes[1])


def test_hardest_rois_that_do_not_overlap():
    """Shrivastava et al. 2016, in numpy."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 30, (40, 2))
    corners = np.concatenate([low, low + rng.uniform(10, 30, (40, 2))], 1).astype(np.float32)
    loss = rng.random(40).astype(np.float32)
    group = rng.integers(-1, 2, 40)
    overlap = np.asarray(pairwise_iou(jnp.asarray(corners), jnp.asarray(corners)))
    kept: list[int] = []
    for i in np.argsort(-loss):
        if group[i] and (not kept or overlap[i, kept].max() <= 0.7):
            kept.append(i)
    for count in (8, 39):
        sample = jax.jit(hardest_apart, static_argnums=4)(
            corners, loss, group > 0, group < 0, count
        )
        hardest = kept[:count]
        expected = [i for i in hardest if group[i] > 0] + [i for i in hardest if group[i] < 0]
        assert np.asarray(sample.index)[sample.valid].tolist() == expected
        assert sample.positive.sum() == (group[hardest] > 0).sum() > 0
    assert len(kept) < (group != 0).sum()


@pytest.mark.parametrize("low_quality, owner", [("none", 0), ("object", 1)])
def test_an_object_may_take_its_best_proposal_from_another(low_quality, owner):
    """The proposal overlaps A by 0.74 and B by 0.60, but it is the best that B has."""
    objects = jnp.array([[[0, 0, 10, 10], [4, 0, 14, 10]]], jnp.float32)
    found = match_candidates(
        jnp.array([[[1.5, 0, 11.5, 10]]]),
        jnp.ones((1, 1), bool),
        objects,
        jnp.zeros((1, 2), jnp.int32),
        jnp.ones((1, 2), bool),
        iou=0.5,
        low_quality=low_quality,
    )
    assert found.match[0].tolist() == [0, 1, owner]


def test_of_400_objects_a_few_are_learnt_at_a_time():
    """They do not crowd out the background, and every one has its turn with other numbers drawn."""
    y, x = np.mgrid[:20, :20].reshape(2, 1, -1) * 10.0
    objects = np.stack([x, y, x + 8, y + 8], -1).astype(np.float32)  # [1, 400, 4]
    proposals = objects[:, :50] + np.float32([5, 5, 5, 5])  # each overlaps one by less than a tenth

    @jax.jit
    def run(key):
        there, labels = jnp.ones((1, 50), bool), jnp.arange(400)[None] % 7
        known = jnp.ones((1, 400), bool)
        found = match_candidates(
            proposals, there, objects, labels, known, iou=0.5, low_quality="none"
        )

        def turn(key):
            rank = jax.random.uniform(key, (450,))
            positive, negative = found.positive[0], found.negative[0]
            sample = balanced_sample(rank, positive, negative, 16, 4)
            return take_rois(found, jax.tree.map(lambda x: x[None], sample), objects)

        return jax.vmap(turn)(jax.random.split(key, 1500))

    rois = jax.device_get(run(jax.random.key(0)))
    assert (rois.positive.sum(-1) == 4).all() and rois.valid.all()
    assert (rois.labels[..., :4] == 1 + rois.match[..., :4] % 7).all()
    assert (rois.labels[..., 4:] == 0).all() and not rois.is_object[..., 4:].any()
    assert len(np.unique(rois.match[..., :4])) == 400
