"""Deformable convolution against torchvision's, in both ways of its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.nn.conv import conv2d
from jdet.ops.deform_conv import bilinear_samples, deform_conv
from tests.golden import load


@pytest.fixture(params=["cpu", "accelerator"])
def way(request, monkeypatch):
    """The gradient of accelerators on the CPU too."""
    used = []

    def choose(*arrays, cpu, default):
        used.append(default)
        return (cpu if request.param == "cpu" else default)(*arrays)

    monkeypatch.setattr(jax.lax, "platform_dependent", choose)
    yield
    assert used  # no program of the other way was taken from JAX's cache


def test_equals_torchvision(way):
    golden = load("deform_conv")

    def nhwc(name):
        return jnp.asarray(golden[name].transpose(0, 2, 3, 1))

    kernel = jnp.asarray(golden["weight"].transpose(2, 3, 1, 0))
    offsets = nhwc("offset").reshape(2, 6, 7, 9, 2)
    found, pull = jax.vjp(jax.jit(lambda *arrays: deform_conv(*arrays)), nhwc("x"), offsets, kernel)
    np.testing.assert_allclose(found, nhwc("out"), atol=1e-5)
    x, moved, weights = pull(nhwc("cotangent"))
    np.testing.assert_allclose(x, nhwc("grad_x"), atol=1e-5)
    np.testing.assert_allclose(moved.reshape(2, 6, 7, 18), nhwc("grad_offset"), atol=1e-5)
    np.testing.assert_allclose(weights.transpose(3, 2, 0, 1), golden["grad_weight"], atol=5e-5)


def test_without_offsets_it_is_a_convolution():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 4, 5, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 2)), jnp.float32)
    found = deform_conv(x, jnp.zeros((1, 4, 5, 9, 2)), kernel)
    np.testing.assert_allclose(found, conv2d(x, kernel, padding=1), atol=1e-5)
    low = deform_conv(
        x.astype(jnp.bfloat16), jnp.zeros((1, 4, 5, 9, 2)), kernel.astype(jnp.bfloat16)
    )
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(jnp.float32), found, atol=0.1)


@pytest.mark.parametrize("away", [-1.0, 5.0, 1e9, -1e9, np.inf])
def test_beside_the_map_there_is_nothing(away):
    x = jnp.ones((1, 3, 4, 2))
    places = jnp.array([[[away, 1.0], [1.0, away]]])
    value, pull = jax.vjp(bilinear_samples, x, places)
    assert (value == 0).all()
    gradient, slope = pull(jnp.ones_like(value))
    assert (gradient == 0).all()
    # At the very edge it rises inwards, as everywhere on the side of larger coordinates.
    assert (slope == (jnp.diag(jnp.full(2, 2.0)) if away == -1 else 0)).all()


def test_places_that_are_no_numbers_are_seen():
    value = bilinear_samples(jnp.ones((1, 2, 2, 1)), jnp.full((1, 1, 2), jnp.nan))
    assert jnp.isnan(value).all()
