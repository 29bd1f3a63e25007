"""The exact GELU against the error function of the C library."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jdet.nn.gelu import gelu

X = np.linspace(-12, 12, 4001).astype(np.float32)
NORMAL = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in X.tolist()])
WIDE = X.astype(np.float64)


def test_values_and_slopes():
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(gelu)))(X)
    np.testing.assert_allclose(values, WIDE * NORMAL, rtol=0, atol=2e-6)
    density = np.exp(-(WIDE**2) / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(slopes, NORMAL + WIDE * density, rtol=1e-6, atol=1e-6)


def test_other_types_are_those_of_the_input():
    low = jnp.asarray(X, jnp.bfloat16)
    assert gelu(low).dtype == jnp.bfloat16
    np.testing.assert_array_equal(gelu(low), gelu(low.astype(jnp.float32)).astype(jnp.bfloat16))
    assert jax.grad(lambda x: jnp.sum(gelu(x).astype(jnp.float32)))(low).dtype == jnp.bfloat16


def test_devices_may_share_it():
    mesh = Mesh(np.array(jax.devices()[:2]), ("device",))
    over = PartitionSpec("device")

    def slopes(x):
        return jax.grad(lambda x: jnp.sum(gelu(x)))(x)

    divided = jax.jit(jax.shard_map(slopes, mesh=mesh, in_specs=over, out_specs=over))
    np.testing.assert_allclose(divided(X[:4000]), jax.jit(slopes)(X[:4000]), rtol=1e-6, atol=1e-7)
