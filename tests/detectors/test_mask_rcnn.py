"""Mask R-CNN's wiring: which RoIs its mask heads learn from, and whose masks are averaged."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.detectors.mask_rcnn import MaskRCNN
from jdet.train import state
from jdet.train.init import calibrate
from jdet.types import ConfigError, Detections
from tests import harness
from tests.detectors import two_stage
from tests.detectors.test_rcnn_batches import TWO_STAGES
from tests.detectors.two_stage import CLASSES


def config(name, **fields):
    c = two_stage.config(
        name, mask_head=build.group("mask_head", "fcn", convs=1, channels=8), mask_size=4, **fields
    )
    c.data.mask_size = 16
    return c


@pytest.fixture(scope="module")
def run():
    """``run(masks)``: losses with these bitmaps, the gradient, and detections, of two stages."""
    model = build.detector(config("cascade_mask_rcnn", **TWO_STAGES), CLASSES)
    batch = harness.make_batch(64, count=2)
    batch = batch._replace(valid=jnp.ones_like(batch.valid).at[1].set(False))
    given = batch._replace(masks=jnp.zeros((2, 6, 16, 16), jnp.uint8))
    init = functools.partial(model.init, method="losses", train=True)
    variables = jax.jit(init)(jax.random.key(0), given)

    @jax.jit
    def compiled(masks):
        def loss(params):
            means, _ = harness.call_losses(
                model,
                {**variables, "params": params},
                batch._replace(masks=masks),
                jax.random.key(0),
            )
            return means["mask"].total + means["mask2"].total, means

        gradient, means = jax.grad(loss, has_aux=True)(variables["params"])
        found = model.apply(variables, batch.images, batch.image_sizes, method="detect")
        return means, gradient, found

    return lambda masks: jax.device_get(compiled(masks))


def test_stages_learn_the_masks_of_their_positives(run):
    """At the start every cell is as probable as not: a loss of ln 2 for each positive, times the weight."""
    means, gradient, found = run(jnp.ones((2, 6, 16, 16), jnp.uint8))
    for end, weight in (("", 1.0), ("2", 0.5)):
        positives = means[f"mask{end}"].weight
        assert 4 <= positives <= 4 * 2  # a quarter of 16, in the image with objects
        mean = means[f"mask{end}"].total / positives
        np.testing.assert_allclose(mean, weight * np.log(2), rtol=0.3)
        assert any(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient[f"mask_head{end}"]))
    assert found.masks.shape == (*found.scores.shape, 8, 8)
    assert found.masks.min() >= 0 and found.masks.max() <= 1 and found.masks.std() > 0


def test_nothing_is_learnt_of_masks_that_are_not_known(run):
    some = jnp.ones((2, 6, 16, 16), jnp.uint8).at[:, 3:].set(0)
    every, first, others = (run(masks)[0] for masks in (jnp.ones_like(some), some, 1 - some))
    assert first["mask"].weight + others["mask"].weight == every["mask"].weight > 0
    np.testing.assert_allclose(
        first["mask"].total + others["mask"].total, every["mask"].total, rtol=1e-5
    )
    for key in ("cls", "loc", "cls2", "loc2"):
        np.testing.assert_array_equal(first[key].total, every[key].total)
    none, gradient, _ = run(some * 0)
    assert none["mask"].weight == none["mask"].total == 0
    assert all((x == 0).all() for x in jax.tree.leaves(gradient["mask_head"]))


def test_masks_of_all_stages_are_averaged_as_probabilities():
    model = build.detector(config("cascade_mask_rcnn"), CLASSES)
    said = {1: -2.0, 2: 0.5, 3: 3.0}

    def logits(self, levels, corners, real, stage, *, train):
        return said[stage.number] * jnp.arange(5.0) * jnp.ones((*corners.shape[:2], 8, 8, 1))

    found = Detections(
        boxes=jnp.zeros((1, 3, 4)),
        scores=jnp.ones((1, 3)),
        labels=jnp.array([[1, 4, 0]]),
        valid=jnp.ones((1, 3), bool),
    )
    with mock.patch.object(MaskRCNN, "_mask_logits", logits):
        masks = model.finished([], found).masks
    for i, label in enumerate((1, 4, 0)):
        expected = np.mean([1 / (1 + np.exp(-x * label)) for x in said.values()])
        np.testing.assert_allclose(masks[0, i], expected, rtol=1e-5)


def test_a_mask_head_is_part_of_the_group():
    c = config("mask_rcnn")
    model = build.detector(c, CLASSES)
    assert model.needs == ("masks",) and model.low_quality == "object"
    assert [layer.pattern for layer in model.head_layout().classes][-1] == r"mask_head\d*/mask/.*"
    c.model.mask_head.class_agnostic, c.calibration.scope = True, "all"
    model = build.detector(c, CLASSES)
    params, _ = state.abstract_variables(model, c)
    layers = {path.removesuffix("/kernel") for path in calibrate.scope(model, c, params)}
    assert {"rpn/conv1", "box_head/fc1", "mask_head/deconv"} < layers
    outputs = {"rpn/cls", "rpn/box", "box_head/cls", "box_head/box", "mask_head/mask"}
    assert not layers & outputs  # predictions are not calibrated
    del c.model.mask_head
    with pytest.raises(ConfigError, match="config.model.mask_head is missing"):
        build.detector(c, CLASSES)
