"""Parameters that are there are looked up, and initialisers are those of Flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import errors

from jdet.nn import initialisers
from jdet.nn.conv import Conv
from jdet.nn.layer import Dense

X = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 3)), jnp.float32)


def test_applying_leaves_the_initialiser_alone():
    calls = []

    def ones(key, shape, dtype):
        calls.append(shape)
        return jnp.ones(shape, dtype)

    layers = Conv(2, 1, kernel_init=ones), Dense(2, kernel_init=ones, bias_init=ones)
    for layer, shapes in zip(layers, ([(1, 1, 3, 2)], [(3, 2), (2,)])):
        variables = layer.init(jax.random.key(0), X)
        assert calls == shapes
        sums = np.broadcast_to(np.sum(X, -1, keepdims=True) + (len(shapes) - 1), (1, 4, 4, 2))
        np.testing.assert_allclose(layer.apply(variables, X), sums, rtol=1e-6, atol=1e-6)
        assert calls == shapes
        calls.clear()


def test_dense_is_that_of_flax():
    ours, flax = (jax.jit(made(5).init)(jax.random.key(1), X) for made in (Dense, nn.Dense))
    jax.tree.map(np.testing.assert_array_equal, ours, flax)


@pytest.mark.parametrize("layer", [Conv(2, 3), Dense(2)], ids=["conv", "dense"])
def test_another_shape_is_refused(layer):
    variables = jax.eval_shape(layer.init, jax.random.key(0), X)
    wide = jax.ShapeDtypeStruct((1, 4, 4, 5), jnp.float32)
    with pytest.raises(errors.ScopeParamShapeError, match="kernel.*shape .3, "):
        jax.eval_shape(layer.apply, variables, wide)


def test_initialisers_are_those_of_flax():
    scaled, made = nn.initializers.variance_scaling, initialisers
    for ours, flax in (
        (made.caffe_xavier, scaled(1.0, "fan_in", "uniform")),
        (made.xavier, scaled(1.0, "fan_avg", "uniform")),
        (made.he, scaled(2.0, "fan_out", "normal")),
        (made.he_fan_in, scaled(2.0, "fan_in", "normal")),
        (made.gaussian, nn.initializers.normal(0.01)),
        (made.small_normal, nn.initializers.normal(0.02)),
    ):
        draw = jax.jit(lambda key, i: i(key, (3, 3, 4, 5), jnp.float32), static_argnums=1)
        np.testing.assert_array_equal(draw(jax.random.key(2), ours), draw(jax.random.key(2), flax))
