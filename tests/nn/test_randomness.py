"""Draws per image: of its own number alone, another at every place and call, the same recomputed."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.nn import randomness
from jdet.nn.randomness import Dropout, DropPath, per_image_keys
from jdet.nn.remat import Remat


class Draw(nn.Module):
    """Uniform numbers [B, 5]."""

    stream: str = "sample"

    @nn.compact
    def __call__(self, count):
        keys = per_image_keys(self, self.stream, count)
        return jax.vmap(lambda key: jax.random.uniform(key, (5,)))(keys)


class Places(nn.Module):
    """Draws at two places, twice at the second of them, and from both streams."""

    @nn.compact
    def __call__(self, count):
        second = Draw(name="second")
        draws = Draw(name="first")(count), second(count), second(count)
        return jnp.stack([*draws, Draw("dropout", name="dropped")(count)])


def draw(module, index, *args, key=0):
    with randomness.images(None if index is None else jnp.asarray(index, jnp.int32)):
        return module.apply({}, *args, rngs=randomness.streams(jax.random.key(key)))


def test_a_draw_belongs_to_the_image():
    whole = draw(Places(), [7, 3, 9, 4], 4)
    part = draw(Places(), [9, 3], 2)
    np.testing.assert_array_equal(part, whole[:, [2, 1]])
    assert (
        len(np.unique(whole)) == whole.size
    )  # neither places, calls, streams nor images share one
    assert not np.any(draw(Places(), [7, 3, 9, 4], 4, key=1) == whole)
    np.testing.assert_array_equal(draw(Places(), None, 3), draw(Places(), [0, 1, 2], 3))


def test_rows_that_are_no_images_are_refused():
    with pytest.raises(ValueError, match="draws for 8 rows, but the batch has 4 images"):
        draw(Draw(), [7, 3, 9, 4], 8)


@pytest.mark.parametrize("layer, per_image", [(Dropout(0.25), 300), (DropPath(0.25), 1)])
def test_what_is_kept_is_scaled_up(layer, per_image):
    images = 3 * 1200 // per_image
    x = jnp.ones((images, 3, 100), jnp.bfloat16)
    with randomness.images(jnp.arange(images)):
        y = layer.apply({}, x, train=True, rngs=randomness.streams(jax.random.key(3)))
    assert y.dtype == x.dtype and y.shape == x.shape
    kept = np.asarray(y != 0).reshape(images, -1)
    np.testing.assert_allclose(np.asarray(y, np.float32)[np.asarray(y != 0)], 4 / 3, rtol=1e-2)
    assert kept.mean() == pytest.approx(0.75, abs=0.03)
    whole = kept.all(1) | ~kept.any(1)  # an image keeps its branch or goes without
    assert whole.all() if per_image == 1 else not whole.any()
    np.testing.assert_array_equal(layer.apply({}, x, train=False), x)


@pytest.mark.parametrize("layer", [Dropout, DropPath])
def test_rates_of_nothing_and_all(layer):
    x = jnp.ones((2, 4))
    np.testing.assert_array_equal(layer(0.0).apply({}, x, train=True), x)
    np.testing.assert_array_equal(layer(1.0).apply({}, x, train=True), 0 * x)


class Branches(nn.Module):
    """Two residual branches with drop-path inside a segment that may be recomputed."""

    remat: Remat

    @nn.compact
    def __call__(self, x):
        def segment(module, x):
            del module
            for name in ("one", "two"):
                x = x + DropPath(0.5, name=f"{name}_drop")(nn.Dense(4, name=name)(x), train=True)
            return x

        x = nn.Dense(4, name="stem")(x)
        return self.remat.segment(segment, "blocks")(self, x)


def test_recomputing_draws_the_same():
    x = jax.random.normal(jax.random.key(1), (16, 4))
    rngs = randomness.streams(jax.random.key(2))
    params = jax.jit(Branches(Remat()).init)({"params": jax.random.key(0), **rngs}, x)

    def gradient(remat):
        def loss(params):
            with randomness.images(jnp.arange(16) + 5):
                y = Branches(Remat(remat)).apply(params, x, rngs=rngs)
            return jnp.mean(y**2), y

        (_, y), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return y, gradient

    plain = gradient("none")
    for remat in ("convs", "full", "stages"):
        again = gradient(remat)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), plain, again)
