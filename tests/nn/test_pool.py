import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.nn.pool import max_pool, pooled_size

CASES = [(2, 2, 0, True), (2, 2, 0, False), (3, 2, 1, False), (3, 2, 0, True), (3, 1, 1, False)]


def literal(x, window, strides, padding, ceil):
    """Window by window; the first maximum in row-major order takes the gradient."""
    batch, height, width, channels = x.shape
    rows, columns = (pooled_size(n, window, strides, padding, ceil) for n in (height, width))
    y = np.full((batch, rows, columns, channels), -np.inf, np.float32)
    winner = np.zeros(y.shape + (2,), int)
    for i in range(rows):
        for j in range(columns):
            for r in range(i * strides - padding, i * strides - padding + window):
                for c in range(j * strides - padding, j * strides - padding + window):
                    if 0 <= r < height and 0 <= c < width:
                        better = x[:, r, c] > y[:, i, j]
                        y[:, i, j] = np.where(better, x[:, r, c], y[:, i, j])
                        winner[:, i, j] = np.where(better[..., None], (r, c), winner[:, i, j])
    return y, winner


@pytest.mark.parametrize("window, strides, padding, ceil", CASES)
@pytest.mark.parametrize("size", [(8, 6), (7, 9)])
@pytest.mark.parametrize("tied", [False, True])
def test_value_and_gradient(window, strides, padding, ceil, size, tied):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    x = np.round(x) if tied else x
    expected, winner = literal(x, window, strides, padding, ceil)
    y, pull = jax.vjp(lambda x: max_pool(x, window, strides, padding, ceil=ceil), jnp.asarray(x))
    np.testing.assert_array_equal(y, expected)
    dy = rng.normal(size=y.shape).astype(np.float32)
    dx = np.zeros_like(x)
    b, i, j, k = np.indices(y.shape)
    np.add.at(dx, (b, winner[..., 0], winner[..., 1], k), dy)
    np.testing.assert_allclose(pull(jnp.asarray(dy))[0], dx, atol=1e-5)


@pytest.mark.parametrize(
    "size, window, strides, padding, ceil, expected",
    [
        (75, 2, 2, 0, True, 38), (75, 2, 2, 0, False, 37), (75, 3, 2, 1, False, 38),
        (300, 3, 2, 1, False, 150), (300, 3, 2, 0, True, 150), (19, 3, 1, 1, True, 19),
        (4, 2, 2, 1, True, 3), (5, 3, 4, 1, True, 2),
    ],
)  # fmt: skip
def test_caffe_sizes(size, window, strides, padding, ceil, expected):
    assert pooled_size(size, window, strides, padding, ceil) == expected


def test_bfloat16_stays_bfloat16():
    x = jnp.ones((1, 4, 4, 1), jnp.bfloat16)
    y, pull = jax.vjp(lambda x: max_pool(x, 2), x)
    assert y.dtype == pull(y)[0].dtype == jnp.bfloat16
