"""Ops on nothing: no objects, no anchors, no detections."""

import jax.numpy as jnp
import numpy as np
import pytest

from jdet.ops import boxes, coding, losses, matching, nms, sampling, voting
from jdet.ops.roi_align import roi_align
from jdet.ops.roi_pool import roi_pool
from tests.harness import compiled

SIZES = [(0, 5), (3, 0), (0, 0)]


def rows(count):
    return jnp.tile(jnp.array([0.0, 0.0, 8.0, 8.0]), (count, 1))


@pytest.mark.parametrize("objects, anchors", SIZES)
def test_matching(objects, anchors):
    ground_truth, valid = rows(objects), jnp.ones(objects, bool)
    overlap = boxes.pairwise_iou(ground_truth, rows(anchors))
    found = compiled(matching.ssd.match)(overlap, valid)
    assert found.index.shape == found.overlap.shape == (anchors,) and not found.matched.any()
    background = np.full(anchors, matching.BELOW)
    for low_quality in matching.max_iou.LOW_QUALITY:
        match = compiled(matching.max_iou.assign, "overlap_of")(
            ground_truth,
            valid,
            lambda some: boxes.pairwise_iou(some, rows(anchors)),
            positive_iou=0.5,
            negative_iou=0.4,
            low_quality=low_quality,
        )
        np.testing.assert_array_equal(match, background)
    reach = jnp.tile(jnp.array([0.0, 100.0]), (anchors, 1))
    match = compiled(matching.fcos.assign)(
        ground_truth, valid, rows(anchors)[:, 2:] / 2, reach, None
    )
    np.testing.assert_array_equal(match, background)
    grid = matching.atss.Grid(jnp.arange(min(anchors, 1)) + 4.0, 8.0 * jnp.arange(anchors), 8.0)
    match = compiled(matching.atss.assign)(ground_truth, valid, [grid], jnp.array([8, 64]))
    np.testing.assert_array_equal(match, background)
    match = matching.atss.assign_boxes(
        ground_truth, valid, [rows(anchors)], [jnp.ones(anchors, bool)]
    )
    np.testing.assert_array_equal(match, background)
    grid = matching.points.PointGrid(1, anchors, 8.0)
    match = matching.points.assign(ground_truth, valid, [grid], jnp.array([8, 64]))
    np.testing.assert_array_equal(match, background)
    nothing = jnp.zeros((anchors, 2))
    places = matching.Places(nothing, rows(anchors), nothing, nothing[:, 0], nothing[:, 0] == 0)
    labels, nobody = jnp.zeros(objects, jnp.int32), jnp.full(anchors, matching.BELOW)
    found = matching.task_aligned.assign(ground_truth, labels, valid, places, nobody)
    np.testing.assert_array_equal(found.match, background)
    np.testing.assert_array_equal(found.quality, np.zeros(anchors))
    match = matching.simota.assign(ground_truth, labels, valid, places)
    np.testing.assert_array_equal(match, background)


@pytest.mark.parametrize("anchors, classes", [(0, 2), (3, 0)])
def test_detections(anchors, classes):
    scores, settings = jnp.zeros((anchors, classes)), dict(iou_threshold=0.5, keep=4)
    several = [
        compiled(nms.class_wise_nms)(
            rows(anchors), scores, score_threshold=0.1, pre_nms=9, **settings
        ),
        compiled(nms.candidates_nms)(rows(0), jnp.zeros(0), jnp.zeros(0, jnp.int32), **settings),
    ]
    for found in several:
        assert found.boxes.shape == (4, 4) and found.scores.shape == (4,) and not found.valid.any()
    assert [len(x) for x in nms.best_pairs(scores, 0.1, 7)] == [0, 0, 0]
    assert nms.nms(rows(0), jnp.zeros(0, bool), 0.5).shape == (0,)


@pytest.mark.parametrize("kind", voting.KINDS)
def test_merging(kind):
    nothing = jnp.zeros((2, 0))
    found = compiled(voting.merge_traced)(
        jnp.zeros((2, 0, 4)),
        nothing,
        nothing.astype(int),
        nothing.astype(bool),
        kind=kind,
        keep=3,
        iou_threshold=0.5,
    ).detections
    assert found.boxes.shape == (2, 3, 4) and not found.valid.any()


def test_the_rest():
    assert sampling.hard_negatives(jnp.zeros(0), jnp.zeros(0, bool), jnp.array(3)).shape == (0,)
    assert boxes.clip(rows(0), jnp.array([4, 4])).shape == coding.encode(rows(0), rows(0)).shape
    assert losses.iou_loss(rows(0), rows(0)).shape == losses.smooth_l1(rows(0), rows(0))[:, 0].shape


@pytest.mark.parametrize("images, rois", [(1, 0), (0, 3)])
def test_regions(images, rois):
    for take in (roi_align, roi_pool):
        found = take(
            [jnp.ones((images, 4, 4, 2))], jnp.ones((images, rois, 4)), strides=[8], output=3
        )
        assert found.shape == (images, rois, 3, 3, 2)
