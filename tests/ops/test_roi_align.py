"""RoIAlign and RoIPool against torchvision's kernels, on both ways through the tiles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.ops import roi_align as module
from jdet.ops.roi_align import roi_align
from jdet.ops.roi_pool import roi_pool
from jdet.ops.roi_tiles import roi_levels
from tests.golden import load


def nhwc(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def of_images(rois, images):
    """torch's (image, x1, y1, x2, y2) as [B, R, 4] with a mask, and the place of each row there."""
    counts = np.zeros(images, int)
    size = np.bincount(rois[:, 0].astype(int)).max()
    boxes, valid = np.zeros((images, size, 4), np.float32), np.zeros((images, size), bool)
    places = []
    for image, *box in rois:
        image = int(image)
        boxes[image, counts[image]], valid[image, counts[image]] = box, True
        places.append((image, counts[image]))
        counts[image] += 1
    return jnp.asarray(boxes), jnp.asarray(valid), tuple(np.array(places).T)


def value_and_gradient(operation, golden):
    """Output and gradient of the map as torch has them, for the RoIs and cotangent of a golden file."""
    boxes, valid, places = of_images(golden["rois"], len(golden["feat"]))

    def output(level):
        return operation([level], boxes, strides=(8,), output=(5, 7), valid=valid)[places]

    @jax.jit
    def both(level, cotangent):
        found, transpose = jax.vjp(output, level)
        return found, transpose(cotangent)[0]

    found, gradient = both(nhwc(golden["feat"]), nhwc(golden["cotangent"]))
    return found.transpose(0, 3, 1, 2), gradient.transpose(0, 3, 1, 2)


@pytest.fixture(params=[1, 5], ids=["one tile at a time", "five"])
def at_once(request, monkeypatch):
    """Takes the way of accelerators on the CPU too, with fewer tiles than a step can hold and more."""
    if request.param > 1:
        monkeypatch.setattr(
            jax.lax, "platform_dependent", lambda *arrays, cpu, default: default(*arrays)
        )
        monkeypatch.setattr(module, "AT_ONCE", request.param)


@pytest.mark.parametrize("sampling", [0, 2])
@pytest.mark.parametrize("aligned", [False, True])
def test_equals_torchvision(aligned, sampling, at_once):
    golden = load("roi_align")
    operation = functools.partial(roi_align, sampling=sampling, aligned=aligned)
    found, gradient = value_and_gradient(operation, golden)
    case = f"aligned{int(aligned)}_sr{sampling}"
    np.testing.assert_allclose(found, golden[f"out_{case}"], atol=1e-5)
    np.testing.assert_allclose(gradient, golden[f"grad_{case}"], atol=1e-5)


def test_pooling_equals_torchvision():
    golden = load("roi_pool")
    found, gradient = value_and_gradient(roi_pool, golden)
    np.testing.assert_array_equal(found, golden["out"])
    np.testing.assert_allclose(gradient, golden["grad"], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(gradient != 0, golden["grad"] != 0)


def test_levels_equal_torchvision():
    golden = load("multiscale_roi_align")
    levels = [nhwc(golden[f"feat{i}"]) for i in range(3)]
    rows = [np.insert(golden[f"boxes{i}"], 0, i, axis=1) for i in range(2)]
    boxes, valid, places = of_images(np.concatenate(rows), 2)
    # Level 4 of 224 pixels is stride 16, the second of these.
    settings = dict(strides=(8, 16, 32), output=7, finest_scale=112.0)
    found = roi_align(levels, boxes, **settings, aligned=False, valid=valid)
    np.testing.assert_array_equal(roi_levels(boxes, 3, 112.0)[places], golden["levels"])
    np.testing.assert_allclose(found[places].transpose(0, 3, 1, 2), golden["out"], atol=1e-5)


LEVELS = [np.random.default_rng(i).normal(size=(2, 40 >> i, 24 >> i, 2)) for i in range(2)]
# Longer than a tile along either axis, turned around, far outside, empty, and not a number.
ROIS = [
    [0, 3, 90, 150],
    [40, 9, 47, 160],
    [80, 60, 20, 10],
    [500, 500, 600, 600],
    [0] * 4,
    [np.nan] * 4,
]


@pytest.mark.parametrize(
    ("operation", "at_once"),
    [(roi_align, 1), (roi_align, 5), (roi_pool, 1)],
    indirect=["at_once"],
    ids=["align", "align five tiles at a time", "pool"],
)
def test_odd_and_invalid_rois(operation, at_once):
    levels = [jnp.asarray(level, jnp.bfloat16) for level in LEVELS]
    rois = jnp.asarray([ROIS, ROIS[::-1]], jnp.float32)
    valid = jnp.asarray([[True] * 4 + [False] * 2, [False] + [True] * 5])

    @jax.jit
    def run(valid, *levels):
        def output(*levels):
            return operation(levels, rois, strides=(4, 8), output=2, valid=valid)

        found, transpose = jax.vjp(output, *levels)
        # What is not valid has any gradient, and must not spread it.
        return found, transpose(
            jnp.where(valid[..., None, None, None], 1, jnp.nan) * jnp.ones_like(found)
        )

    found, gradients = run(valid, *levels)
    assert found.dtype == jnp.bfloat16 and all(g.dtype == jnp.bfloat16 for g in gradients)
    assert found.shape == (2, 6, 2, 2, 2)
    np.testing.assert_array_equal(found[~valid], 0)
    assert all(np.isfinite(np.asarray(g, np.float32)).all() for g in (found, *gradients))
    assert (found[0, :2] != 0).all() and (found[1, 4:] != 0).any()
    exact, _ = run(valid, *(level.astype(jnp.float32) for level in levels))
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=2**-8, atol=1e-6)


def test_devices_share_a_batch():
    """Inside ``shard_map`` each device has its own images."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.PartitionSpec("data")
    levels = [jnp.asarray(LEVELS[0], jnp.float32)]
    rois = jnp.asarray([ROIS, ROIS[::-1]], jnp.float32)

    def gradients(rois, *levels):
        def total(*levels):
            return sum(
                jnp.sum(operation(levels, rois, strides=(4,), output=2) ** 2)
                for operation in (functools.partial(roi_align, sampling=0), roi_pool)
            )

        return jax.grad(total, tuple(range(len(levels))))(*levels)

    shared = jax.shard_map(gradients, mesh=mesh, in_specs=split, out_specs=split)
    for ours, alone in zip(jax.jit(shared)(rois, *levels), jax.jit(gradients)(rois, *levels)):
        np.testing.assert_allclose(ours, alone, rtol=1e-6)


def test_levels_must_fit():
    levels = [jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 2, 2, 3))]
    rois = jnp.zeros((1, 1, 4))
    with pytest.raises(ValueError, match="2 levels have 1 strides"):
        roi_align(levels, rois, strides=(4,), output=2)
    with pytest.raises(ValueError, match="one number of channels"):
        roi_pool(levels, rois, strides=(4, 8), output=2)
