"""What holds for all dense detectors: RetinaNet, FCOS, ATSS and RepPointsV2."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jdet import build
from jdet.config import get_defaults
from jdet.describe import describe
from jdet.detectors.pyramid import Predictions
from tests import harness
from tests.detectors.wild import ends_of
from tests.tiny_backbone import TINY

CLASSES = tuple("abcde")
NAMES = ("retinanet", "fcos", "atss", "reppoints_v2")
LOOKS = {
    "fcos": {"assignment": "simota", "cls_loss": "varifocal"},
    "atss": {"assignment": "task_aligned", "cls_loss": "quality"},
}
"""Assignments that look at predictions, and losses whose targets are qualities."""

VARIANTS = [(name, {}) for name in NAMES] + list(LOOKS.items())
SHAPES = ((8, 8), (4, 4), (2, 2))


def config(name, size=64, depth=0, neck=None, **fields):
    """With a ResNet of that depth, or with the tiny backbone."""
    c = get_defaults()
    c.input_size = size
    c.resize = build.group("resize", "keep_ratio", short=(size,), long=size)
    c.model = build.group(
        "detector",
        name,
        backbone=build.group(
            "backbone", **(dict(name="resnet", depth=depth) if depth else dict(name=TINY))
        ),
        neck=build.group("neck", "fpn", **(neck or {})),
        **fields,
    )
    return c


@functools.cache
def make(name, **fields):
    """A small model with three levels."""
    neck = dict(channels=16, extra="none")
    small = dict(neck=neck, head_channels=16, head_depth=1)
    return build.detector(config(name, **small, **fields), CLASSES)


def random_predictions(model, count=2, size=64, seed=0):
    """Predictions without a network, on ``SHAPES``."""
    rng = np.random.default_rng(seed)
    priors = model.priors(SHAPES, (size, size))

    def draw(*shape):
        return [jnp.asarray(rng.normal(size=(count, len(p), *shape)), jnp.float32) for p in priors]

    return Predictions({name: draw(*end) for name, end in ends_of(model, 5).items()}, priors)


@pytest.mark.parametrize("name, head_norm", [("fcos", "group"), harness.thorough("atss", "batch")])
def test_battery(name, head_norm):
    norm = "group" if head_norm == "group" else "batch"
    harness.check_detector(
        lambda: make(name, norm=norm, head_norm=head_norm), 64, len(CLASSES), background=True
    )


def losses_of(model, found, *arrays):
    means = model.loss_terms(found, *arrays, jnp.full((2, 2), 64))
    return {key: mean.total / jnp.maximum(mean.weight, 1) for key, mean in means.items()}


@pytest.mark.parametrize("name, fields", VARIANTS)
def test_order_of_objects_does_not_matter_and_nothing_to_learn_is_no_accident(name, fields):
    # By MMDetection's rule the last of several objects takes the anchor that is the best of all.
    rule = dict(low_quality="anchor") if name == "retinanet" else fields
    model, batch = make(name, **rule), harness.make_batch(64, count=2, boxes=6)
    found = random_predictions(model)

    @jax.jit
    def run(predictions, *arrays):
        return jax.value_and_grad(
            lambda p: (lambda means: (sum(means.values()), means))(
                losses_of(model, Predictions(p, found.priors), *arrays)
            ),
            has_aux=True,
        )(predictions)

    predictions = found.outputs
    ground_truth, labels, valid = batch.boxes, batch.labels, batch.valid
    (_, means), gradient = jax.device_get(run(predictions, ground_truth, labels, valid))
    assert means["loc"] > 0
    order = jnp.array([3, 5, 0, 2, 1, 4])
    (_, others), gradients = run(
        predictions, ground_truth[:, order], labels[:, order], valid[:, order]
    )
    for key, mean in means.items():
        np.testing.assert_allclose(mean, others[key], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(gradients)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)

    # A fifth of a pixel between the points, in the middle of nowhere: no anchor is for it.
    speck = jnp.broadcast_to(jnp.array([1.4, 1.4, 1.6, 1.6]), ground_truth.shape)
    for boxes, there in ((speck, valid), (ground_truth * 0, valid), (ground_truth, valid & False)):
        (loss, means), gradient = jax.device_get(run(predictions, boxes, labels, there))
        assert np.isfinite(loss) and means["cls"] > 0
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name, fields", VARIANTS)
def test_samples_are_those_that_the_loss_counts(name, fields):
    """Left for ``train.sample_stats``, for every image; padding is no background."""
    model, found = make(name, **fields), random_predictions(make(name))
    batch = harness.make_batch(64, count=2)
    arrays = batch.boxes, batch.labels, batch.boxes[..., 2] > batch.boxes[..., 0]
    sizes = jnp.array([[64, 64], [40, 64]])
    means, left = jax.jit(
        lambda *a: model.apply({}, found, *a, method="loss_terms", mutable=["samples"])
    )(*arrays, sizes)
    samples = left["samples"]
    assert samples["positives"].shape == (2,) and samples["positives"].max() > 0
    # Both losses of places are divided by the positives.
    assert samples["positives"].sum() == means["cls"].weight
    within = [sum((p[:, 1] < height).sum() for p in found.priors) for height in (64, 40)]
    np.testing.assert_array_equal(samples["background"] + samples["positives"], within)
    others = samples["background"] - samples["negatives"]
    assert (others >= 0).all() and (name == "retinanet" or (others == 0).all())


@pytest.mark.parametrize("soft", ["linear", "gaussian"])
def test_soft_nms_keeps_more_at_lower_scores(soft):
    """The best is untouched; what plain NMS drops is kept with a lower score."""
    crowded = dict(pre_nms=60, max_detections=200, nms_iou=0.1, score_threshold=0.02)
    found = random_predictions(make("retinanet"))
    sizes = jnp.full((2, 2), 64)
    hard, gentle = (
        jax.jit(make("retinanet", soft_nms=kind, **crowded).postprocess)(found, sizes)
        for kind in ("none", soft)
    )
    np.testing.assert_allclose(gentle.scores[:, 0], hard.scores[:, 0], rtol=1e-6)
    assert (gentle.valid.sum(1) > hard.valid.sum(1)).all()
    assert (np.diff(gentle.scores) <= 1e-7).all() and (gentle.scores[gentle.valid] >= 0.02).all()


@pytest.mark.parametrize("name, fields", VARIANTS)
def test_losses_of_two_devices_add_up(name, fields):
    model, batch = make(name, **fields), harness.make_batch(64, count=2)
    found = random_predictions(model)
    arrays = (found.outputs, batch.boxes, batch.labels, batch.boxes[..., 0] > 0)

    def losses(predictions, *arrays):
        sizes = jnp.full((len(arrays[0]), 2), 64) + 0 * arrays[1][:, :1]
        return model.loss_terms(Predictions(predictions, found.priors), *arrays, sizes)

    kinds = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("group",), axis_types=kinds, devices=jax.devices()[:2])
    spread = jax.shard_map(
        lambda *arrays: jax.lax.psum(losses(*arrays), "group"),
        mesh=mesh,
        in_specs=P("group"),
        out_specs=P(),
    )
    together, apart = jax.jit(losses)(*arrays), jax.jit(spread)(*arrays)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(apart)):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    "name, norm",
    [
        ("retinanet", "batch"),
        harness.thorough("fcos", "group"),
        harness.thorough("atss", "batch"),
        harness.thorough("reppoints_v2", "group"),
    ],
)
def test_an_image_is_the_same_in_a_larger_input(name, norm):
    """Losses and detections, whatever the padding holds; norms measure the content alone."""
    model = make(name, norm=norm, head_norm=norm, score_threshold=0.0, pre_nms=30)
    batch = harness.make_batch(64, count=2)
    contents = ((50, 40), (33, 60))
    sizes = jnp.array(contents)
    boxes = jnp.minimum(batch.boxes, jnp.array([40.0, 50.0, 40.0, 50.0]))

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def run(variables, shape, beside):
        pixels = jnp.full((2, *shape, 3), beside, jnp.uint8)
        for i, (height, width) in enumerate(contents):
            pixels = pixels.at[i, :height, :width].set(batch.images[i, :height, :width])
        given = batch._replace(images=pixels, boxes=boxes, image_sizes=sizes)
        means, _ = model.apply(
            variables, given, train=True, method="losses", mutable=["batch_stats"]
        )
        return means, model.apply(variables, pixels, sizes, method="detect")

    variables = harness.initialise(model, batch.images, train=False)
    variables["params"]["head"] = jax.tree.map(
        lambda x: x * 20 if x.ndim == 4 else x, variables["params"]["head"]
    )  # predictions that differ
    means, found = run(variables, (64, 64), 0)
    others, again = run(variables, (64, 96), 200)
    for key, mean in means.items():
        assert mean.weight > 0
        np.testing.assert_allclose(mean.weight, others[key].weight, rtol=1e-5)
        np.testing.assert_allclose(mean.total, others[key].total, rtol=1e-4)
    np.testing.assert_array_equal(found.valid, again.valid)
    np.testing.assert_allclose(found.scores, again.scores, atol=1e-4)
    np.testing.assert_array_equal(found.labels, again.labels)
    np.testing.assert_allclose(found.boxes, again.boxes, atol=1e-3)


@pytest.mark.parametrize(
    "name, classes, fields, parameters",
    [
        ("fcos", 80, dict(head_bias=False), 32_295_322),
        harness.thorough("atss", 80, {}, 32_295_322),
        # torchvision's 32,269,600 leave out the backbone's 53,120 frozen scales and shifts.
        harness.thorough("fcos", 91, dict(level_scales=False), 32_269_600 + 53_120),
    ],
    ids=["fcos", "atss", "torchvision"],
)
def test_published_numbers(name, classes, fields, parameters):
    """Parameters with ResNet-50; multiply-adds of torchvision's FCOS at 800×800 pixels, else 800×1280."""
    neck = dict(extra="conv_p5")
    c = config(name, 800, 50, neck, head_norm="group", **fields)
    found = describe(c, tuple(map(str, range(classes))), (800, 800 if classes == 91 else 1280))
    assert found.parameters == parameters
    by_path = {row.path: row.parameters for row in found.rows}
    assert by_path["neck"] == 3_868_672
    if classes == 91:
        assert found.macs / 1e9 == pytest.approx(128.207, rel=0.01)
        assert sum(level["boxes"] for level in found.levels) == 13_343
    else:
        assert by_path["head"] == 4_918_618
        assert found.macs / 1e9 == pytest.approx(204.487, abs=0.006)  # 205.3 with norms


def test_padding_that_is_let_in_has_the_mean_colour():
    """Whatever was painted there; and it is seen."""
    images = harness.make_batch(64, count=2).images[:1]
    model = make("fcos", norm="none", head_norm="none", mask_padding=False)
    variables = harness.initialise(model, images, train=False)
    variables["params"]["backbone"] = jax.tree.map(
        lambda x: x + 0.1 if x.ndim == 1 else x, variables["params"]["backbone"]
    )  # biases, which make something of nothing
    sizes = jnp.array([[32, 64]])

    @functools.partial(jax.jit, static_argnames="masked")
    def logits(colour, masked=False):
        painted = jnp.where(jnp.arange(64)[:, None, None] < 32, images, colour).astype(jnp.uint8)
        network = model.clone(mask_padding=masked)
        found = network.apply(variables, painted, sizes, train=False, method="by_level")
        return found.outputs["logits"][0].reshape(8, 8, -1)[:4]

    np.testing.assert_array_equal(logits(0), logits(255))
    assert np.abs(logits(0) - logits(0, masked=True))[3].max() > 1e-6


def test_warped_images_have_no_padding_to_mask():
    c = config("fcos")
    assert build.detector(c, CLASSES).padded_inputs
    c.resize = build.group("resize", "warp")
    assert not build.detector(c, CLASSES).padded_inputs
