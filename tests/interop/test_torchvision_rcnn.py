"""Mask R-CNN with ResNet-50-FPN with the same numbers in both libraries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet import build
from jdet.config import get_defaults
from jdet.interop.torchvision import from_torchvision
from jdet.types import Batch
from tests import golden
from tests.interop.test_torchvision import weight

LOSSES = {
    "rpn_cls": "loss_objectness",
    "rpn_loc": "loss_rpn_box_reg",
    "cls": "loss_classifier",
    "loc": "loss_box_reg",
    "mask": "loss_mask",
}


def detector():
    c = get_defaults()
    c.input_size = 128
    few = dict(pre_nms_train=300, pre_nms=300, proposals_train=60, proposals=60)
    c.model = build.group(
        "detector",
        "mask_rcnn",
        backbone=build.group("backbone", "resnet", depth=50),
        neck=build.group("neck", "fpn", extra="pool"),
        # All anchors and RoIs are taken, so that nothing depends on random numbers.
        rpn=build.group("rpn", "torchvision_rpn", samples=8192, **few),
        box_head=build.group("box_head", "2fc"),
        mask_head=build.group("mask_head", "fcn"),
        samples=256,
        low_quality="none",
        box_loss="smooth_l1",
        smooth_l1_beta=1 / 9,
        roi_aligned=False,
        clamp_below=False,
        binary_masks=False,
        min_side=1e-2,
        max_detections=20,
        head_norm="none",
    )
    return build.detector(c, tuple("abcde"))


@pytest.fixture(scope="module")
def given():
    return golden.load("mask_rcnn_r50")


@pytest.fixture(scope="module")
def results(given):
    """Losses, proposals and detections of two images of 96×128 with 3 and 2 objects, in one program."""
    model = detector()
    weights = {
        str(key): weight(str(key), tuple(n for n in shape if n))
        for key, shape in zip(given["names"], given["shapes"].tolist())
    }
    sizes = jnp.array([[96, 128]] * 2, jnp.int32)
    initialise = functools.partial(model.init, jax.random.key(0), method="detect")
    variables = jax.eval_shape(initialise, jnp.asarray(given["images"]), sizes)
    variables = from_torchvision(variables, weights)
    batch = Batch.of_images(jnp.asarray(given["images"]), sizes)._replace(
        boxes=jnp.asarray(given["boxes"]),
        labels=jnp.asarray(given["labels"], jnp.int32),
        valid=np.arange(3) < given["count"][:, None],
        ignore=np.zeros((2, 3), bool),
        masks=jnp.asarray(given["masks"]),
    )

    def everything(model, batch):
        _, found = model.by_level(batch.images, sizes, train=False)
        return (
            model.losses(batch, train=False),
            model.rpn.propose(found, sizes, train=False),
            model.detect(batch.images, sizes),
        )

    rngs = {"sample": jax.random.key(0)}
    run = jax.jit(lambda v, batch: model.apply(v, batch, method=everything, rngs=rngs))
    return jax.tree.map(np.asarray, run(variables, batch))


def test_losses(given, results):
    losses, _, _ = results
    assert set(losses) == set(LOSSES)
    for name, mean in losses.items():
        found = mean.total / mean.weight
        np.testing.assert_allclose(found, given[LOSSES[name]], rtol=1e-3, err_msg=name)


def test_proposals(given, results):
    _, proposals, _ = results
    for i in range(2):
        expected = given[f"proposals{i}"]
        assert proposals.valid[i].sum() == len(expected)
        np.testing.assert_allclose(proposals.boxes[i][: len(expected)], expected, atol=0.02)


def test_detections(given, results):
    """Those of nearly equal scores may come in another order."""
    _, _, found = results
    for i in range(2):
        scores, boxes = given[f"scores{i}"], given[f"found_boxes{i}"]
        assert found.valid[i].sum() == len(scores)
        np.testing.assert_allclose(found.scores[i][: len(scores)], scores, atol=1e-3)
        same = []
        for box, score, label in zip(found.boxes[i], found.scores[i], found.labels[i]):
            other = (given[f"found_labels{i}"] != label) | (np.abs(scores - score) > 1e-3)
            apart = np.abs(boxes - box).max(1) + 1e3 * other
            same.append(np.argmin(apart))
            assert apart.min() < 0.05
        assert sorted(same) == list(range(len(scores)))
        if i == 0:
            np.testing.assert_allclose(found.masks[i], given["found_masks"][same], atol=1e-3)
