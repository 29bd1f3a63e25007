"""Windows, their shift, and what attention must not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.nn import attention, padding
from jdet.nn.attention import WindowAttention


def test_relative_index():
    index = attention.relative_index(7)
    assert index.shape == (49, 49) and (index.min(), index.max()) == (0, 168)
    np.testing.assert_array_equal(index + index.T, 168)
    np.testing.assert_array_equal(np.diag(index), 84)
    assert index[0, 1] == 83 and index[0, 7] == 84 - 13  # a key to the right, one below


@pytest.mark.parametrize("sides, shifts", [((14, 21), (3, 3)), ((7, 14), (0, 3)), ((8, 8), (2, 2))])
def test_regions_are_those_of_the_reference(sides, shifts):
    """Loops over slices, as in the published code (and torchvision's, by axis)."""
    window = 7 if sides[1] % 7 == 0 else 4
    expected, number = np.zeros(sides, int), 0
    cuts = [[0, n - window, n - s, n] if s else [0, n] for n, s in zip(sides, shifts)]
    for top, bottom in zip(cuts[0], cuts[0][1:]):
        for left, right in zip(cuts[1], cuts[1][1:]):
            expected[top:bottom, left:right] = number
            number += 1
    found = np.asarray(attention.regions(list(sides), window, shifts))
    assert len(np.unique(found)) == number
    np.testing.assert_array_equal(
        found[:, None, :, None] == found[None, :, None, :],
        expected[:, None, :, None] == expected[None, :, None, :],
    )
    tokens = np.asarray(attention.to_windows(jnp.asarray(found)[None, :, :, None], window))
    same = tokens == tokens.swapaxes(1, 2)
    assert same.any(-1).all()  # every token sees one at least: itself
    grid = same.reshape(sides[0] // window, sides[1] // window, -1)
    assert grid[:-1, :-1].all()  # windows inside have no mask
    still = attention.to_windows(
        attention.regions(list(sides), window, (0, 0))[None, :, :, None], window
    )
    assert not still.any()


def test_windows_there_and_back():
    x = jnp.arange(2 * 6 * 9 * 2).reshape(2, 6, 9, 2)
    windows = attention.to_windows(x, 3)
    assert windows.shape == (12, 9, 2)
    np.testing.assert_array_equal(windows[4].reshape(3, 3, 2), x[0, 3:6, 3:6])
    np.testing.assert_array_equal(attention.from_windows(windows, 3, 6, 9), x)


@pytest.fixture(scope="module")
def shifted():
    """A layer on maps of 8×12 in windows of 4, whose biases are not zero, and its variables."""
    layer = WindowAttention(heads=2, window=4, shift=2, attend_padding=False)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 12, 8)), jnp.float32)
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    return layer, jax.tree.map(lambda p: p + 0.3, variables), x


def test_attention_stays_inside_window_and_neighbourhood(shifted):
    layer, variables, x = shifted
    gradient = jax.jit(
        jax.grad(lambda x, y, z: jnp.sum(layer.apply(variables, x)[0, y, z])), static_argnums=(1, 2)
    )
    seen = jnp.any(gradient(x, 0, 3) != 0, axis=-1)
    assert not seen[1].any()
    rows, columns = np.nonzero(np.asarray(seen[0]))
    # Windows start at row and column 2; those that wrap around an edge end there.
    assert (set(rows), set(columns)) == ({0, 1}, {2, 3, 4, 5})


def test_features_do_not_depend_on_the_padding(shifted):
    """An image of 6×7 cells alone, and in a corner of a larger map."""
    layer, variables, x = shifted
    alone = x[:, :6, :7]
    run = jax.jit(layer.apply)
    with padding.content(jnp.array([[6, 7], [8, 12]]), (8, 12)):
        inside = jax.jit(lambda *given: layer.apply(*given))(variables, x)  # not traced before
    np.testing.assert_allclose(inside[0, :6, :7], run(variables, alone)[0], atol=1e-5)
    np.testing.assert_allclose(inside[1], run(variables, x)[1], atol=1e-5)


def test_attended_padding_is_the_bias_of_keys_and_values(shifted):
    """By default zeros up to whole windows are seen; one token alone then sees them and itself."""
    layer, variables, x = shifted
    reference = layer.clone(attend_padding=True, shift=0)
    token = x[:, :1, :1]
    params = variables["params"]
    tokens = jnp.concatenate([token.reshape(2, 1, 8), jnp.zeros((2, 15, 8))], axis=1)
    qkv = tokens @ params["qkv"]["kernel"] + params["qkv"]["bias"]
    q, k, v = (part.reshape(2, 16, 2, 4) for part in jnp.split(qkv, 3, axis=-1))
    bias = params["position_bias"][attention.relative_index(4)[0]]  # [keys, heads]
    logits = jnp.einsum("bhd,bkhd->bhk", q[:, 0] / 2, k) + bias.T
    expected = jnp.einsum("bhk,bkhd->bhd", jax.nn.softmax(logits), v).reshape(2, 8)
    expected = expected @ params["proj"]["kernel"] + params["proj"]["bias"]
    found = jax.jit(reference.apply)(variables, token)[:, 0, 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Left out: a token sees itself alone.
    alone = jax.jit(layer.apply)(variables, token)[:, 0, 0]
    only = v[:, 0].reshape(2, 8) @ params["proj"]["kernel"] + params["proj"]["bias"]
    np.testing.assert_allclose(alone, only, atol=1e-5)
