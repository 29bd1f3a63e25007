import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jdet.nn.batch_norm import batch_norm_train
from jdet.ops.vma import varying


def reference(x, scale, bias, groups):
    """Plain automatic differentiation of the definition."""
    grouped = x.reshape(groups, -1, x.shape[-1])
    mean = grouped.mean(1, keepdims=True)
    var = ((grouped - mean) ** 2).mean(1, keepdims=True)
    y = (grouped - mean) / jnp.sqrt(var + 1e-3) * scale + bias
    return y.reshape(x.shape), mean[:, 0], var[:, 0]


def case(batch=8):
    rng = np.random.default_rng(0)
    shape = (batch, 3, 4, 5)
    spread = np.arange(1, batch + 1)[:, None, None, None]
    x = jnp.asarray(rng.normal(size=shape) * spread + 2, jnp.float32)
    scale, bias = (jnp.asarray(rng.normal(size=5), jnp.float32) for _ in range(2))
    return x, scale, bias, jnp.asarray(rng.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_value_and_gradients_equal_automatic_differentiation(groups):
    x, scale, bias, dy = case()

    @functools.partial(jax.jit, static_argnums=0)
    def run(norm, *arrays, dy):
        y, pull, rest = jax.vjp(
            lambda *a: ((found := norm(*a))[0], found[1:3]), *arrays, has_aux=True
        )
        return y, pull(dy), rest

    ours = functools.partial(batch_norm_train, eps=1e-3, groups=groups)
    theirs = functools.partial(reference, groups=groups)
    y, gradients, (mean, var) = run(ours, x, scale, bias, dy=dy)
    expected, expected_gradients, (expected_mean, expected_var) = run(theirs, x, scale, bias, dy=dy)
    np.testing.assert_allclose(y, expected, atol=2e-5)
    for one, other in zip(gradients, expected_gradients):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mean.reshape(groups, -1), expected_mean, rtol=1e-5)
    np.testing.assert_allclose(var.reshape(groups, -1), expected_var, rtol=1e-5)


@pytest.mark.parametrize("members, sums", [(4, 2), (2, 2), (1, 0)])
def test_one_reduction_over_devices_in_each_direction(members, sums):
    """None where a device has no team; and JAX knows along which axes the statistics differ."""
    x, scale, bias, dy = case()
    kinds = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((4 // members, members), ("group", "member"), axis_types=kinds)
    rows = P(("group", "member"))
    differ = {4: set(), 2: {"group"}, 1: {"group", "member"}}[members]

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(rows, P(), P(), rows), out_specs=rows)
    def input_gradient(x, scale, bias, dy):
        norm = functools.partial(batch_norm_train, eps=1e-3, axis_name="member")
        assert varying(norm(x, scale, bias)[1]) == differ
        return jax.vjp(lambda x: norm(x, scale, bias)[0], x)[1](dy)[0]

    text = jax.jit(input_gradient).lower(x, scale, bias, dy).compile().as_text()
    assert text.count(" all-reduce(") + text.count(" all-reduce-start(") == sums


def test_constant_input_stays_finite():
    x, scale, bias, dy = case()
    pull = jax.vjp(lambda x: batch_norm_train(x, scale, bias, eps=1e-5)[0], jnp.ones_like(x))[1]
    assert np.isfinite(pull(dy)[0]).all()
