import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdet.ops import losses


def test_smooth_l1_values_and_gradient():
    x = jnp.array([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])
    expected = [2.5, 0.5, 0.125, 0.0, 0.125, 0.5, 2.5]
    np.testing.assert_allclose(losses.smooth_l1(x, jnp.zeros(7)), expected)
    np.testing.assert_allclose(losses.smooth_l1(x, jnp.zeros(7), beta=0.5)[0], 2.75)
    gradient = jax.grad(lambda v: losses.smooth_l1(v, jnp.zeros(7)).sum())(x)
    np.testing.assert_allclose(gradient, [-1, -1, -0.5, 0, 0.5, 1, 1])


def test_cross_entropy_equals_optax():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 7, 5)) * 20, jnp.float32)
    labels = jnp.asarray(np.random.default_rng(1).integers(0, 5, (4, 7)))
    np.testing.assert_allclose(
        losses.softmax_cross_entropy(logits, labels),
        optax.softmax_cross_entropy_with_integer_labels(logits, labels),
        rtol=1e-6,
    )
