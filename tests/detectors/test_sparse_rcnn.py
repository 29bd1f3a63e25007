import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jdet import build
from jdet.config import get_defaults
from jdet.detectors import sparse_rcnn
from jdet.ops.coverage import Objects
from jdet.parallel import mesh as mesh_lib
from jdet.train import gradient, state
from jdet.types import ConfigError
from tests import harness
from tests.tiny_backbone import TINY

CLASSES = tuple("abcde")


def config(**fields):
    """A small detector: one level, two stages, six proposals."""
    c = get_defaults()
    c.input_size = 64
    c.data.max_boxes = 6
    c.resize = build.group("resize", "keep_ratio", short=(64,), long=64)
    few = dict(proposals=6, stages=2, attention_heads=2, dynamic_channels=4, hidden=16)
    few |= dict(roi_size=3, box_layers=1, norm="group", max_detections=20, taps=("c2",))
    c.model = build.group(
        "detector",
        "sparse_rcnn",
        backbone=build.group("backbone", TINY, stages=("c2", "c4")),
        neck=build.group("neck", "fpn", channels=8, extra="none"),
        **(few | fields),
    )
    return c


def make(**fields):
    return build.detector(config(**fields), CLASSES)


def test_battery():
    harness.check_detector(lambda: make(norm="batch"), 64, len(CLASSES), background=True)


@functools.cache
def network():
    """``run(variables, images, sizes)``: what all stages predict, and the boxes that each begins with."""
    model, batch = make(), harness.make_batch(64, count=2)
    variables = harness.initialise(model, batch, method="losses", train=True)

    @jax.jit
    def run(variables, images, sizes):
        seen, real = [], sparse_rcnn.roi_align

        def roi_align(levels, rois, **settings):
            seen.append(rois)
            return real(levels, rois, **settings)

        with mock.patch.object(sparse_rcnn, "roi_align", roi_align):
            found = model.apply(variables, images, sizes, train=False, method="by_stage")
        return found, seen

    return run, variables, batch


CONTENTS = jnp.array([[50, 40], [33, 60]])


def test_at_the_start_all_boxes_are_the_whole_image():
    """The part of the input that the image fills."""
    run, variables, batch = network()
    found, seen = run(variables, batch.images, CONTENTS)
    for boxes, (height, width) in zip(seen[0], CONTENTS):
        np.testing.assert_array_equal(boxes, np.tile([0, 0, width, height], (6, 1)))
    np.testing.assert_array_equal(seen[1], found.boxes[0])
    assert found.boxes.shape == (2, 2, 6, 4) and found.logits.shape == (2, 2, 6, 5)


def test_permuted_proposals_permute_what_is_found():
    run, variables, batch = network()
    rng = np.random.default_rng(0)
    params = dict(variables["params"])
    params["proposal_boxes"] = jnp.asarray(rng.uniform(0.2, 0.8, (6, 4)), jnp.float32)
    order = rng.permutation(6)
    other = {key: x[order] if key.startswith("proposal") else x for key, x in params.items()}
    found, again = (run({"params": p}, batch.images, CONTENTS)[0] for p in (params, other))
    assert np.ptp(found.boxes, axis=2).min() > 0
    for a, b in zip(found, again):
        np.testing.assert_allclose(a[:, :, order], b, rtol=1e-4, atol=1e-4)


def test_padding_does_not_matter():
    """Images in an input with more room; the first fills the smaller one.

    Where boxes of later stages leave it, points less than a cell beyond it may see more there.
    """
    run, variables, batch = network()
    params = dict(variables["params"])
    sides = np.random.default_rng(3).uniform(0.2, 0.9, (6, 4))
    params["proposal_boxes"] = jnp.asarray(sides, jnp.float32)
    contents = jnp.array([[64, 64], [33, 60]])
    wide = jnp.pad(batch.images, ((0, 0), (0, 0), (0, 32), (0, 0)), constant_values=200)
    found, again = (run({"params": params}, x, contents)[0] for x in (batch.images, wide))
    for a, b in zip(found, again):
        np.testing.assert_allclose(a[0], b[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(a[:, 1], b[:, 1], rtol=1e-4, atol=1e-4)


def test_sides_of_learnt_boxes_have_no_sign():
    boxes = sparse_rcnn.boxes_on_images(jnp.array([[0.5, 0.5, -0.2, 0.4]]), jnp.array([[10, 20]]))
    np.testing.assert_allclose(boxes, [[[8, 3, 12, 7]]], rtol=1e-5)


def whole_map(levels, rois, *, output, **settings):
    """In place of RoIAlign, whose program takes longer to compile than all others here."""
    mean = jnp.mean(levels[0], axis=(1, 2))[:, None, None, None]
    return jnp.broadcast_to(mean, (*rois.shape[:2], output, output, mean.shape[-1]))


@mock.patch.object(sparse_rcnn, "roi_align", whole_map)
def split_losses(devices):
    """Loss, its parts and the gradient of one batch of four images, the second without objects."""
    c = config()
    c.parallel.devices, c.train.batch_size = devices, 4
    detector, mesh = build.detector(c, CLASSES), mesh_lib.make_mesh(c)

    def run(params, batch):
        found = gradient.loss_and_gradient(
            detector, params, {}, batch, step=jnp.int32(0), config=c, mesh=mesh
        )
        return found.loss, found.parts, found.gradient

    params, _ = jax.jit(lambda: state.init_variables(detector, c))()
    program = jax.shard_map(
        run, mesh=mesh, in_specs=(P(), P(mesh_lib.split_axes(mesh))), out_specs=P()
    )
    batch = mesh_lib.to_global(harness.make_batch(64), mesh)
    params = jax.device_put(jax.device_get(params), mesh_lib.replicated(mesh))
    return jax.device_get(jax.jit(program)(params, batch))


together = functools.cache(lambda: split_losses(1))


@pytest.mark.parametrize("devices", [harness.thorough(2), 4])
def test_losses_do_not_depend_on_the_devices(devices):
    loss, parts, gradients = together()
    others = split_losses(devices)
    assert set(parts) == {f"{name}{end}" for name in ("cls", "loc", "giou") for end in ("", "2")}
    assert all(part > 0 for part in parts.values())
    np.testing.assert_allclose(others[0], loss, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), others[1], parts)
    most = max(np.abs(x).max() for x in jax.tree.leaves(gradients))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * most),
        others[2],
        gradients,
    )
    # Only the first stage's boxes lead back to the proposals.
    assert np.abs(gradients["proposal_boxes"]).max() > 0


def test_detections_are_the_best_pairs():
    model = make(max_detections=4, score_threshold=0.5)
    logits = np.full((2, 6, 5), -3.0, np.float32)
    logits[:, 2, [1, 4]], logits[:, 5, 0] = [2.0, 1.0], 3.0
    corners = np.tile(np.array([-5.0, 2.0, 99.0, 30.0], np.float32), (2, 6, 1))
    sizes = jnp.array([[20, 64], [0, 0]])
    found = model.postprocess(jnp.asarray(logits), jnp.asarray(corners), sizes)
    np.testing.assert_array_equal(found.valid, [[1, 1, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(found.labels[0], [0, 1, 4, 0])
    np.testing.assert_allclose(found.scores[0, :3], 1 / (1 + np.exp([-3.0, -2.0, -1.0])), rtol=1e-6)
    np.testing.assert_array_equal(found.boxes[0, :3], np.tile([0, 2, 64, 20], (3, 1)))


def test_settings_that_do_not_fit():
    with pytest.raises(ConfigError, match="attention_heads=3 does not divide the 8 channels"):
        make(attention_heads=3)
    with pytest.raises(ConfigError, match="matcher='scipy'; it can be one of device, host"):
        make(matcher="scipy")


def test_more_objects_than_proposals():
    """A warning at the start."""

    def objects(keep_ignored):
        assert not keep_ignored
        images = np.repeat([0, 1, 2], [3, 9, 7])
        return Objects(np.zeros((19, 4)), np.zeros(19, int), images)

    said = make().start_warning(objects, CLASSES, None)
    assert said.startswith("2 of 3 sampled images hold more than config.model.proposals=6 objects")
    assert "up to 9" in said and "--config.model.proposals=18" in said
    assert make(proposals=9).start_warning(objects, CLASSES, None) == ""
