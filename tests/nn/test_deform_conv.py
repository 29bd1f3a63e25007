import jax
import jax.numpy as jnp
import numpy as np

from jdet.nn import observe, padding
from jdet.nn.conv import Conv
from jdet.nn.deform_conv import DeformConv


def test_without_offsets_it_is_a_convolution_padding_and_power_included():
    """Of an image of 24×32 pixels in an input of 32×32, on a map of stride 8."""
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 3))
    offsets = jnp.zeros((1, 4, 4, 9, 2))
    params = {"kernel": jax.random.normal(jax.random.key(1), (3, 3, 3, 2))}
    with padding.content(jnp.array([[24, 32]]), (32, 32)), observe.layers() as seen:
        plain = Conv(2).apply({"params": params}, x)
        moved = DeformConv(2).apply({"params": params}, x, offsets)
    np.testing.assert_allclose(moved, plain, atol=1e-5)
    first, second = seen["kernel"]
    np.testing.assert_allclose(second.power, first.power, atol=1e-5)
