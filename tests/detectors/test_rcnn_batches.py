"""Two-stage detectors: the same images in other batches, in other inputs, with nothing to find."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jdet import build
from jdet.parallel import mesh as mesh_lib
from jdet.train import gradient, state
from tests import harness
from tests.detectors import two_stage
from tests.detectors.two_stage import CLASSES

TWO_STAGES = dict(
    stage_ious=(0.5, 0.6), stage_weights=(1.0, 0.5), center_stds=(0.1, 0.05), size_stds=(0.2, 0.1)
)


def split_losses(devices, accumulation):
    """Loss, its parts and the gradient of one batch of four images."""
    c = two_stage.config(
        "cascade_rcnn", norm="group", head=dict(name="4conv1fc", convs=1), **TWO_STAGES
    )
    c.model.head_norm = "group"
    c.parallel.devices, c.train.accumulation, c.train.batch_size = devices, accumulation, 4
    detector, mesh = build.detector(c, CLASSES), mesh_lib.make_mesh(c)

    def run(params, batch):
        found = gradient.loss_and_gradient(
            detector, params, {}, batch, step=jnp.int32(3), config=c, mesh=mesh
        )
        return found.loss, found.parts, found.gradient

    params, _ = jax.jit(lambda: state.init_variables(detector, c))()
    specs = P(), P(mesh_lib.split_axes(mesh))
    program = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=P())
    batch = mesh_lib.to_global(harness.make_batch(64), mesh)
    params = jax.device_put(jax.device_get(params), mesh_lib.replicated(mesh))
    return jax.device_get(jax.jit(program)(params, batch))


together = functools.cache(lambda: split_losses(1, 1))


@pytest.mark.parametrize("devices, accumulation", [(2, 1), harness.thorough(4, 1), (1, 2)])
def test_losses_do_not_depend_on_the_split(devices, accumulation):
    """What is drawn of anchors and RoIs included."""
    loss, parts, gradients = together()
    others = split_losses(devices, accumulation)
    assert set(parts) == {"rpn_cls", "rpn_loc", "cls", "loc", "cls2", "loc2"}
    assert all(part > 0 for part in parts.values())
    np.testing.assert_allclose(others[0], loss, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), others[1], parts)
    most = max(np.abs(x).max() for x in jax.tree.leaves(gradients))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * most),
        others[2],
        gradients,
    )


def test_an_image_is_the_same_in_a_larger_input():
    """Losses and detections, samples included, whatever the padding holds; one program per shape.

    Other numbers of objects, and an image without content, of which nothing is proposed, need no other.
    """
    model = two_stage.make(
        "cascade_rcnn",
        norm="batch",
        head=dict(name="4conv1fc", convs=1),
        head_norm="batch",
        score_threshold=0.0,
        context=1.5,
        semantic_weight=0.2,
        semantic_convs=1,
        semantic_channels=4,
        **TWO_STAGES,
    )
    batch = harness.make_batch(64, count=2)
    contents = ((50, 40), (33, 60))
    valid = jnp.ones_like(batch.valid).at[:, 3:].set(False)
    boxes = jnp.minimum(batch.boxes, jnp.array([40.0, 50.0, 40.0, 50.0]))
    boxes = boxes.at[1].set(jnp.minimum(boxes[0], jnp.array([40.0, 33.0, 40.0, 33.0])))
    batch = batch._replace(valid=valid, boxes=boxes)

    @jax.jit
    def run(variables, pixels, valid, sizes):
        given = batch._replace(images=pixels, valid=valid, image_sizes=sizes)
        means, _ = harness.call_losses(model, variables, given, jax.random.key(0))
        return means, model.apply(variables, pixels, sizes, method="detect")

    def padded(shape, beside):
        pixels = jnp.full((2, *shape, 3), beside, jnp.uint8)
        for i, (height, width) in enumerate(contents):
            pixels = pixels.at[i, :height, :width].set(batch.images[i, :height, :width])
        return pixels

    init = jax.jit(lambda key: model.init(key, batch, method="losses", train=True))
    variables = init(jax.random.key(0))
    for part in ("rpn", "box_head", "box_head2"):  # predictions that differ
        variables["params"][part] = jax.tree.map(
            lambda x: x * 8 if x.ndim > 1 else x, variables["params"][part]
        )
    sizes = jnp.array(contents)
    means, found = run(variables, padded((64, 64), 0), valid, sizes)
    others, again = run(variables, padded((64, 96), 200), valid, sizes)
    for key, mean in means.items():
        assert mean.weight > 0 and mean.total > 0
        assert mean.weight == others[key].weight
        np.testing.assert_allclose(mean.total, others[key].total, rtol=1e-4)
    assert found.valid.any()
    np.testing.assert_array_equal(found.valid, again.valid)
    np.testing.assert_allclose(found.scores, again.scores, atol=1e-4)
    np.testing.assert_array_equal(found.labels, again.labels)
    np.testing.assert_allclose(found.boxes, again.boxes, atol=1e-3)

    nothing = sizes.at[1].set(0)
    for some in (valid, valid.at[0, 1:].set(False), valid & False):
        few, found = run(variables, padded((64, 64), 0), some.at[1].set(False), nothing)
        assert all(np.isfinite(mean.total) for mean in few.values())
        assert found.valid[0].any() and not found.valid[1].any()
        assert (few["loc"].total > 0) == bool(some.any())
    assert run._cache_size() == 2
