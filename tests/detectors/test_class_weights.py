"""Weights of classes: each head multiplies the classification loss of a class's positives, nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.config import validate
from jdet.detectors.multibox import multibox_loss
from jdet.detectors.rois import RoIs
from jdet.detectors.set_loss import SetLoss
from jdet.detectors.stage import Stage, softmax_loss
from jdet.ops.losses import class_weight
from jdet.types import ConfigError
from tests.detectors import test_dense_detector, two_stage

WEIGHTS = (0.5, 3.0)
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def test_background_has_weight_one():
    labels = np.array([[-1, 0], [1, 1]])
    found = jax.jit(lambda labels: class_weight(WEIGHTS, labels))(labels)
    np.testing.assert_allclose(found, [[1, 0.5], [3, 3]])


def test_ssd():
    """Two matched boxes of either class, and a hard negative; boxes lose the same."""
    priors = np.array([[8, 8, 16, 16], [24, 8, 16, 16], [8, 24, 16, 16]], np.float32)
    offsets, logits = normal(1, 3, 4), normal(1, 3, 3)
    objects = np.array([[[0, 0, 16, 16], [16, 0, 32, 16]]], np.float32)
    given = offsets, logits, priors, objects, np.array([[0, 1]]), np.ones((1, 2), bool)
    plain, weighted, entropy = jax.jit(
        lambda *given: (
            *(multibox_loss(*given, class_weights=w) for w in ((), WEIGHTS)),
            softmax_loss(given[1][0], jnp.array([1, 2, 0])),
        )
    )(*given)
    np.testing.assert_allclose(plain[1][0], entropy.sum(), rtol=1e-6)
    np.testing.assert_allclose(weighted[1][0], (entropy * np.array([0.5, 3, 1])).sum(), rtol=1e-6)
    np.testing.assert_array_equal(plain[0], weighted[0])


def test_a_stage_of_two():
    shared = dict(number=1, iou=0.5, weight=1.0, stds=(0.1, 0.1, 0.2, 0.2), box_loss="l1")
    shared |= dict(smooth_l1_beta=1.0, box_weight=1.0, clamp_below=True)
    corners = np.tile(np.float32([0, 0, 9, 9]), (1, 4, 1))
    rois = RoIs(
        boxes=corners,
        labels=np.array([[1, 2, 0, 0]]),
        match=np.zeros((1, 4), int),
        target=corners,
        positive=np.array([[True, True, False, False]]),
        valid=np.array([[True, True, True, False]]),
        is_object=jnp.zeros((1, 4), bool),
    )
    logits, offsets = normal(1, 4, 3), normal(1, 4, 2, 4)
    plain, weighted, entropy = jax.device_get(
        jax.jit(
            lambda *given: (
                *(Stage(**shared, class_weights=w).terms(*given, 2) for w in ((), WEIGHTS)),
                softmax_loss(given[1], given[0].labels)[0],
            )
        )(rois, logits, offsets)
    )
    np.testing.assert_allclose(plain["cls"].total, entropy[:3].sum(), rtol=1e-6)
    expected = (entropy * np.array([0.5, 3, 1, 0])).sum()
    np.testing.assert_allclose(weighted["cls"].total, expected, rtol=1e-6)
    assert weighted["cls"].weight == 3 and weighted["loc"] == plain["loc"]


def test_a_set():
    loss = dict(cls_weight=2.0, l1_weight=5.0, giou_weight=2.0, focal_alpha=0.25, focal_gamma=2.0)
    boxes = np.tile(np.float32([0, 0, 9, 9]), (1, 3, 1))
    given = normal(1, 3, 2), boxes, np.array([[0, 1, -1]]), boxes[:, :2], np.array([[1, 0]])
    plain, weighted, first = jax.device_get(
        jax.jit(
            lambda *given: [
                SetLoss(**loss, matcher="device", class_weights=w).terms(*given)
                for w in ((), WEIGHTS, (1.0, 3.0))
            ]
        )(*given, np.array([[16, 16]]))
    )
    own = (first["cls"].total - plain["cls"].total) / 2  # of the prediction with class 1
    other = (first["cls"].total - weighted["cls"].total) / 0.5  # of that with class 0
    rest = plain["cls"].total - own - other
    assert min(own, other, rest) > 0
    np.testing.assert_allclose(weighted["cls"].total, 3 * own + 0.5 * other + rest, rtol=1e-5)
    assert weighted["loc"] == plain["loc"] and weighted["giou"] == plain["giou"]


def weighted(config, *values):
    with config.unlocked():
        config.train.class_weights.by, config.train.class_weights.factors = "given", values
    return config


@pytest.mark.parametrize("name", test_dense_detector.NAMES)
def test_dense_detectors(name):
    values = (1.0, 2.0, 3.0, 4.0, 5.0)
    c = test_dense_detector.config(name, neck=dict(channels=16, extra="none"))
    plain = build.detector(c, "abcde")
    model = build.detector(weighted(c, *values), "abcde")
    assert model.class_weights == values and plain.class_weights == ()
    given = normal(4, 5), np.array([-1, 0, 1, 4])
    ours, theirs = jax.jit(lambda *g: [each.focal_loss(*g) for each in (model, plain)])(*given)
    np.testing.assert_allclose(ours, theirs * np.array([1.0, 1, 2, 5]), rtol=1e-6)


def test_config():
    c = weighted(two_stage.config(), 1.0, 2.0)
    validate(c)
    with pytest.raises(ConfigError, match="2 numbers for 5 classes"):
        build.detector(c, two_stage.CLASSES)
    model = build.detector(weighted(c, 1.0, 2.0, 1.0, 1.0, 1.0), two_stage.CLASSES)
    assert model.stages[0].class_weights[1] == 2
    for values, by, message in (
        ((), "given", "give a number for each class"),
        ((1.0,), "none", "set that to 'given'"),
        ((0.0, 1.0), "given", "a tuple of numbers above 0"),
    ):
        c.train.class_weights.by, c.train.class_weights.factors = by, values
        with pytest.raises(ConfigError, match=message):
            validate(c)


def test_a_detector_without_weights_refuses_them():
    c = weighted(two_stage.config(), 1.0)
    c.model = build.group("detector", "tests.own_detector:GridDetector")
    with pytest.raises(ConfigError, match="GridDetector' does not weight classes"):
        build.detector(c, ("a",))
