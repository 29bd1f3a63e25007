"""Beside an image there is nothing: layers and whole networks give the same whatever it is padded to."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jdet.nn import padding
from jdet.nn.batch_norm import batch_norm_train
from jdet.nn.conv import Conv
from jdet.nn.norm import Norm
from jdet.nn.pool import max_pool

SIZES = np.array([[40, 64], [64, 36], [33, 50]], np.int32)


def test_cells_that_see_an_image():
    with padding.content(jnp.asarray([[40, 64], [1, 33]]), (64, 96)):
        for height, width, rows, columns in (
            (64, 96, (40, 1), (64, 33)),
            (16, 24, (10, 1), (16, 9)),
            (2, 3, (2, 1), (2, 2)),
            (1, 2, (1, 1), (1, 1)),  # 96 → 3 → 2
        ):
            inside = np.asarray(padding.inside(jnp.zeros((2, height, width, 1))))[..., 0]
            for image in range(2):
                expected = np.zeros((height, width), bool)
                expected[: rows[image], : columns[image]] = True
                np.testing.assert_array_equal(inside[image], expected)
    assert padding.inside(jnp.zeros((2, 64, 96, 1))) is None


def test_the_edge_is_there_once_more_and_zeros_behind():
    x = np.arange(1.0, 1 + 2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4, 1)
    with padding.content(jnp.array([[3, 2], [1, 4]]), (3, 4)):
        found = np.asarray(padding.repeated(jnp.asarray(x)))[..., 0]
    expected = x[..., 0].copy()
    expected[0, :, 2], expected[0, :, 3] = expected[0, :, 1], 0
    expected[1, 1], expected[1, 2] = expected[1, 0], 0
    np.testing.assert_array_equal(found, expected)


def masks(height, width):
    with padding.content(jnp.asarray(SIZES), (64, 64)):
        return padding.inside(jnp.zeros((3, height, width, 1)))


def norm_case():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(2, 3, (3, 8, 8, 5)), jnp.float32)
    scale, bias = (jnp.asarray(rng.normal(size=5), jnp.float32) for _ in range(2))
    return x, scale, bias, jnp.asarray(rng.normal(size=x.shape), jnp.float32), masks(8, 8)


def by_definition(x, scale, bias, mask):
    """Statistics of what counts, by plain automatic differentiation."""
    mean = jnp.mean(x, (0, 1, 2), where=mask)
    var = jnp.mean((x - mean) ** 2, (0, 1, 2), where=mask)
    return (x - mean) / jnp.sqrt(var + 1e-3) * scale + bias, mean, var


def test_batch_norm_of_what_counts():
    """Value, statistics, count and every gradient, those through cells that do not count included."""
    x, scale, bias, dy, mask = norm_case()
    norm = functools.partial(batch_norm_train, eps=1e-3, mask=mask)

    @functools.partial(jax.jit, static_argnums=0)
    def run(function, *arrays):
        y, pull, rest = jax.vjp(
            lambda *a: ((found := function(*a))[0], found[1:]), *arrays, has_aux=True
        )
        return y, pull(dy), rest

    y, gradients, (mean, var, count) = run(norm, x, scale, bias)
    definition = functools.partial(by_definition, mask=mask)
    expected, expected_gradients, (expected_mean, expected_var) = run(definition, x, scale, bias)
    np.testing.assert_allclose(y, expected, atol=2e-5)
    for ours, theirs in zip(gradients, expected_gradients):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-5)
    np.testing.assert_allclose(var, expected_var, rtol=1e-5)
    assert count == mask.sum() == 5 * 8 + 8 * 5 + 5 * 7


def test_groups_and_devices_count_what_they_have():
    """One image a group by itself; devices that share equal one; a group without cells is finite."""
    x, scale, bias, dy, mask = norm_case()

    @functools.partial(jax.jit, static_argnames="groups")
    def norm(mask, groups=1):
        return batch_norm_train(x, scale, bias, eps=1e-3, mask=mask, groups=groups)

    apart, *_ = norm(mask, groups=3)
    for i in range(3):
        one = by_definition(x[i : i + 1], scale, bias, mask[i : i + 1])[0][0]
        np.testing.assert_allclose(apart[i], one, atol=2e-5)
    empty, *_ = norm(mask & False)
    assert np.isfinite(empty).all()

    mesh = jax.make_mesh((3,), ("member",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = P("member")

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(rows, P(), P(), rows, rows), out_specs=(rows, rows, P())
    )
    def on_devices(x, scale, bias, dy, mask):
        def loss(x):
            y, *_, count = batch_norm_train(x, scale, bias, eps=1e-3, axis_name="member", mask=mask)
            return jax.lax.psum(jnp.sum(y * dy), "member"), (y, count)

        gradient, (y, count) = jax.grad(loss, has_aux=True)(x)
        return y, gradient, count

    compiled = jax.jit(on_devices).lower(x, scale, bias, dy, mask).compile()
    assert compiled.as_text().count(" all-reduce(") == 2  # one in each direction
    y, gradient, count = compiled(x, scale, bias, dy, mask)

    @jax.jit
    def definition(x):
        expected, pull = jax.vjp(lambda x: by_definition(x, scale, bias, mask)[0], x)
        return expected, pull(dy)[0]

    expected, expected_gradient = definition(x)
    np.testing.assert_allclose(y, expected, atol=2e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-4)
    assert count == mask.sum()


class Net(nn.Module):
    """Everything that looks further than its own cell, strides and norms: stride 8 in the end."""

    norm: Norm

    @nn.compact
    def __call__(self, x):
        x = Conv(8, kernel_size=7, strides=2, name="stem")(x)
        x = jax.nn.relu(self.norm(train=True, name="norm1")(x))
        x = max_pool(x, 3, 2, 1)
        y = Conv(8, strides=2, use_bias=True, name="conv1")(x)
        y = jax.nn.relu(self.norm(train=True, name="norm2")(y))
        y = self.norm(train=True, name="norm3")(Conv(8, name="conv2")(y))
        return jax.nn.relu(y + Conv(8, kernel_size=1, strides=2, name="shortcut")(x))


@pytest.mark.parametrize("kind", ["batch", "group"])
def test_features_and_gradients_do_not_depend_on_the_padding(kind):
    """The same images, training, in inputs of two shapes and fills: maps, statistics, gradients."""
    net = Net(Norm(kind))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 64, 64, 3)).astype(np.float32)
    weight = rng.normal(size=(3, 8, 8, 8)).astype(np.float32)

    def inputs(height, width, fill):
        x = np.full((3, height, width, 3), fill, np.float32)
        for row, (h, w) in enumerate(SIZES):
            x[row, :h, :w] = images[row, :h, :w]
        return jnp.asarray(x)

    variables = jax.jit(net.init)(jax.random.key(0), inputs(64, 64, 0.0))

    @jax.jit
    def run(x):
        def loss(params):
            rest = {**variables, "params": params}
            with padding.content(jnp.asarray(SIZES), x.shape[1:3]):
                y, stats = net.apply(rest, x, mutable=["batch_stats"])
                y = padding.cleared(y)[:, :8, :8]
            return jnp.sum(y * weight), (y, stats)

        grads, (y, stats) = jax.grad(loss, has_aux=True)(variables["params"])
        return y, stats, grads

    one, other = run(inputs(64, 64, 0.0)), run(inputs(96, 128, 9.0))
    assert np.abs(one[0]).max() > 1 and np.abs(one[2]["stem"]["kernel"]).max() > 1
    # The gradient of a bias before a batch norm is 0, and keeps the rounding of terms that cancel.
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=3e-5 * (1 + np.abs(a).max()))
