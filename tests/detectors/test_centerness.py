"""Assignments and losses that FCOS and ATSS share: what is put together of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.detectors.centerness import centerness_target
from jdet.types import ConfigError
from tests import harness
from tests.detectors.test_dense_detector import LOOKS, make, random_predictions

SIZES = ((64, 64), (40, 64))


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def entropy(p, target):
    return -target * np.log(p) - (1 - target) * np.log(1 - p)


def expected(model, found, batch):
    """Sum of the loss of classes and number of positives, from the assignment image by image."""
    outputs, _ = found.joined()
    total, count, qualities = 0.0, 0, []
    assigned = jax.jit(lambda *arrays: model.assigned(found.priors, *arrays))
    for i, size in enumerate(SIZES):
        within = np.concatenate([p[:, 1] < size[0] for p in found.priors])
        match, quality = assigned(
            (outputs["logits"][i], outputs["offsets"][i]),
            batch.boxes[i],
            batch.labels[i],
            batch.valid[i],
            jnp.asarray(within),
            jnp.array(size),
        )
        match, quality = np.asarray(match), np.asarray(quality, np.float64)
        assert not (match[~within] >= 0).any() and not quality[match < 0].any()
        label = np.asarray(batch.labels[i])[np.maximum(match, 0)]
        one_hot = np.eye(5)[label] * (match >= 0)[:, None]
        p, target = sigmoid(outputs["logits"][i]), one_hot * quality[:, None]
        if model.cls_loss == "quality":
            losses = np.abs(p - target) ** 2 * entropy(p, target)
        else:
            losses = np.where(target > 0, target, 0.75 * p**2) * entropy(p, target)
        weights = np.where(match >= 0, np.asarray(model.class_weights)[label], 1.0)
        total += (losses.sum(1) * weights)[within].sum()
        count += (match >= 0).sum()
        qualities.append(quality)
    return total, count, np.concatenate(qualities)


@pytest.mark.parametrize("name, fields", LOOKS.items())
def test_losses_are_those_of_the_assignment(name, fields):
    model = make(name, **fields).clone(class_weights=(1.0, 2.0, 3.0, 4.0, 5.0))
    found, batch = random_predictions(model), harness.make_batch(64, count=2)
    total, count, quality = expected(model, found, batch)
    assert 0 < quality.max() <= 1
    means = jax.jit(lambda *arrays: model.loss_terms(found, *arrays))(
        batch.boxes, batch.labels, batch.valid, jnp.array(SIZES)
    )
    np.testing.assert_allclose(means["cls"].total, total, rtol=1e-4)
    assert means["cls"].weight == means["centerness"].weight == count


def test_no_option_changes_the_parameters():
    images = jnp.zeros((1, 64, 64, 3), jnp.uint8)
    shapes = [
        jax.eval_shape(lambda m=model: m.init(jax.random.key(0), images, train=False))
        for model in (make("fcos"), make("fcos", **LOOKS["fcos"], score="class"))
    ]
    assert shapes[0] == shapes[1]


def test_scores_of_classes_alone():
    model = make("fcos", score="class", pre_nms=20)
    outputs = {key: level[0][0] for key, level in random_predictions(model).outputs.items()}
    best, index, labels = model.candidates(outputs, jnp.ones(64, bool))
    assert (best > 0).sum() == 20
    np.testing.assert_allclose(best, sigmoid(outputs["logits"])[index, labels], rtol=1e-5)


def test_points_outside_are_not_central():
    box = jnp.array([[10.0, 10, 30, 20]])
    points = jnp.array([[20.0, 15], [5, 15], [40, 30], [10, 15]])
    np.testing.assert_allclose(centerness_target(points, box), [1, 0, 0, 0])


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"assignment": "ota"}, "model.assignment='ota'.*own, task_aligned, simota"),
        ({"cls_loss": "gfl"}, "model.cls_loss='gfl'.*focal, quality, varifocal"),
        ({"assignment": "simota", "regress_bounds": (8.0, 16.0)}, "leave model.regress_bounds"),
        ({"align_beta": 0.0}, "model.align_beta=0.0.*above 0"),
        ({"ota_topk": 0}, "model.ota_topk=0"),
        ({"varifocal_gamma": 0.5}, "model.varifocal_gamma=0.5"),
    ],
)
def test_what_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        make("fcos", **fields)
