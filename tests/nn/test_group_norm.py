import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jdet.nn.group_norm import group_norm

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(4, 5, 6, 12)) * np.arange(1, 13) + 2, jnp.float32)
SCALE, BIAS = (jnp.asarray(RNG.normal(size=12), jnp.float32) for _ in range(2))
TARGET = jnp.asarray(RNG.normal(size=X.shape), jnp.float32)
MASK = (jnp.arange(5) < 3)[:, None, None] & (
    jnp.arange(6)[:, None] < jnp.arange(3, 7)[:, None, None, None]
)


def reference(x, scale, bias, mask):
    """Wu & He 2018, eq. 1 to 3, in two passes, for JAX to differentiate."""
    parts = x.reshape(*x.shape[:3], 3, 4)
    where = jnp.broadcast_to(True if mask is None else mask[..., None], parts.shape)
    mean = jnp.mean(parts, (1, 2, 4), keepdims=True, where=where)
    var = jnp.mean((parts - mean) ** 2, (1, 2, 4), keepdims=True, where=where)
    return ((parts - mean) / jnp.sqrt(var + 1e-5)).reshape(x.shape) * scale + bias


def both(function, x, mask):
    def loss(x, scale, bias):
        y = function(x, scale, bias, mask)
        return jnp.sum((y - TARGET) ** 2), y

    gradient = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    (_, y), found = jax.jit(gradient)(x, SCALE, BIAS)
    return y, found


def ours(x, scale, bias, mask):
    return group_norm(x, scale, bias, groups=3, eps=1e-5, mask=mask)


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_value_and_gradient_are_those_of_the_definition(mask):
    for mine, expected in zip(
        jax.tree.leaves(both(ours, X, mask)), jax.tree.leaves(both(reference, X, mask))
    ):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_bfloat16_is_normalised_in_float32():
    half = X.astype(jnp.bfloat16)
    y, (dx, dscale, _) = both(ours, half, None)
    expected, (slope, of_scale, _) = both(reference, half.astype(jnp.float32), None)
    assert y.dtype == dx.dtype == jnp.bfloat16 and dscale.dtype == jnp.float32
    np.testing.assert_allclose(y.astype(float), expected, rtol=0.01, atol=0.01)
    np.testing.assert_allclose(dx.astype(float), slope, rtol=0.02, atol=0.05 * np.abs(slope).max())
    np.testing.assert_allclose(dscale, of_scale, rtol=0.02, atol=0.02 * np.abs(of_scale).max())


def test_gradients_of_shared_parameters_add_up_over_devices():
    mesh = jax.make_mesh(
        (2,), ("group",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2]
    )

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(P(), P(), P("group"), P("group")), out_specs=P()
    )
    def spread(scale, bias, x, target):
        def loss(scale, bias):
            return jnp.sum((ours(x, scale, bias, None) - target) ** 2)

        return jax.grad(loss, argnums=(0, 1))(scale, bias)

    expected = both(reference, X, None)[1][1:]
    for mine, theirs in zip(jax.jit(spread)(SCALE, BIAS, X, TARGET), expected):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-3)


def test_only_the_input_waits_for_the_backward_pass():
    def loss(x):
        return jnp.sum(jnp.sin(ours(x, SCALE, BIAS, None)))

    kept = jax.eval_shape(lambda x: jax.vjp(loss, x)[1], X.astype(jnp.bfloat16))
    sizes = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept)]
    assert sum(size >= 2 * X.size for size in sizes) == 2  # of the norm, and of the sine
