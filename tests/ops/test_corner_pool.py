import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.ops.corner_pool import COLUMNS, ROWS, running_max


@pytest.mark.parametrize("axis", [ROWS, COLUMNS], ids=["rows", "columns"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("size", [1, 5])
def test_value_and_gradient(axis, reverse, size):
    """Cell by cell; the first of equal values takes the gradient."""
    rng = np.random.default_rng(0)
    shape = [2, 3, 3, 2]
    shape[axis] = size
    x = rng.integers(-3, 3, shape).astype(np.float32)
    dy = rng.normal(size=shape).astype(np.float32)
    y, pull = jax.vjp(lambda x: running_max(x, axis, reverse), jnp.asarray(x))

    def lines(array):
        turned = np.moveaxis(array, axis, 0)
        return turned[::-1] if reverse else turned

    np.testing.assert_array_equal(lines(np.asarray(y)), np.maximum.accumulate(lines(x)))
    expected = np.zeros_like(x)
    place = np.zeros(lines(x).shape[1:], int)
    for i, row in enumerate(lines(x)):
        place = np.where(row > np.take_along_axis(lines(x), place[None], 0)[0], i, place)
        np.add.at(lines(expected), (place, *np.indices(place.shape)), lines(dy)[i])
    np.testing.assert_allclose(pull(jnp.asarray(dy))[0], expected, atol=1e-5)


def test_top_and_left_maxima_meet_in_the_corner():
    """The object's upper edge lies to the right of its top left corner, its left edge below."""
    left, top = (jnp.zeros((1, 6, 6, 1)).at[0, *at].set(1.0) for at in ((5, 2), (1, 4)))
    both = running_max(left, ROWS, True) + running_max(top, COLUMNS, True)
    assert np.argwhere(both[0, ..., 0] == 2).tolist() == [[1, 2]]
