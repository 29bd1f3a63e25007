"""RoIAlign and RoIPool against torchvision's kernels, one tile or RoI at a time and several."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.ops import roi_align as align_module
from jdet.ops import roi_pool as pool_module
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


@pytest.fixture(params=[1, 5], ids=["one at a time", "five"])
def at_once(request, monkeypatch):
    """Takes the way of accelerators on the CPU too, with fewer tiles than a step holds and more."""
    if request.param > 1:
        monkeypatch.setattr(
            jax.lax, "platform_dependent", lambda *arrays, cpu, default: default(*arrays)
        )
        for module in (align_module, pool_module):
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


def test_pooling_equals_torchvision(at_once):
    golden = load("roi_pool")
    found, gradient = value_and_gradient(roi_pool, golden)
    np.testing.assert_array_equal(found, golden["out"])
    np.testing.assert_allclose(gradient, golden["grad"], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(gradient != 0, golden["grad"] != 0)


def pooled(levels, roi, cotangent, size):
    """One RoI of one image by loops over its cells: the largest of each bin, and the gradients."""
    scale = np.sqrt(max((roi[2] - roi[0]) * (roi[3] - roi[1]), 0)) / 56
    number = int(scale >= 2)
    level, stride = levels[number], 4 << number
    gradients = [np.zeros_like(x) for x in levels]
    found = np.zeros((size, size, level.shape[-1]), np.float32)
    low, high = (np.floor(np.array(x) / stride + 0.5).astype(int) for x in (roi[:2], roi[2:]))
    length = np.maximum(high - low + 1, 1)
    for i, j, c in np.ndindex(found.shape):
        (left, top), (right, bottom) = (
            np.clip(low + at, 0, level.shape[1::-1])
            for at in (
                np.array([j, i]) * length // size,
                -(-np.array([j + 1, i + 1]) * length // size),
            )
        )
        part = level[top:bottom, left:right, c]
        if part.size:
            row, column = np.unravel_index(part.argmax(), part.shape)  # the first one in rows
            found[i, j, c] = part.max()
            gradients[number][top + row, left + column, c] += cotangent[i, j, c]
    return found, gradients


def test_pooling_of_equal_cells(at_once):
    """Maps of few different values; whole numbers, so that sums are exact in any order."""
    rng = np.random.default_rng(0)
    levels = [rng.integers(-1, 2, (2, n, n + 3, 3)).astype(np.float32) for n in (24, 12)]
    corners = rng.uniform(-20, 80, (2, 7, 2))
    rois = np.concatenate([corners, corners + rng.uniform(0, 160, (2, 7, 2))], -1).astype(
        np.float32
    )
    valid = rng.random((2, 7)) < 0.8
    cotangent = rng.integers(1, 9, (2, 7, 3, 3, 3)).astype(np.float32)

    @jax.jit
    def both(*levels):
        def output(*levels):
            return roi_pool(levels, rois, strides=(4, 8), output=3, valid=jnp.asarray(valid))

        found, transpose = jax.vjp(output, *levels)
        return found, transpose(cotangent)

    found, gradients = both(*levels)
    for image in range(2):
        maps = [level[image] for level in levels]
        total = [np.zeros_like(x) for x in maps]
        for k in range(7):
            alone = pooled(maps, rois[image, k], cotangent[image, k], 3)
            if valid[image, k]:
                total = [x + y for x, y in zip(total, alone[1])]
            np.testing.assert_array_equal(found[image, k], alone[0] if valid[image, k] else 0)
        for ours, expected in zip(gradients, total):
            np.testing.assert_array_equal(ours[image], expected)


def test_levels_equal_torchvision():
    golden = load("multiscale_roi_align")
    levels = [nhwc(golden[f"feat{i}"]) for i in range(3)]
    rows = [np.insert(golden[f"boxes{i}"], 0, i, axis=1) for i in range(2)]
    boxes, valid, places = of_images(np.concatenate(rows), 2)
    # Level 4 of 224 pixels is stride 16, the second of these.
    settings = dict(strides=(8, 16, 32), output=7, finest_scale=112.0)
    found = jax.jit(functools.partial(roi_align, **settings, aligned=False))(
        levels, boxes, valid=valid
    )
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
    [(roi_align, 1), (roi_align, 5), (roi_pool, 1), (roi_pool, 5)],
    indirect=["at_once"],
    ids=["align", "align five tiles at a time", "pool", "pool five RoIs at a time"],
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
