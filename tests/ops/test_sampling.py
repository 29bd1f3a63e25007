import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jdet.ops.sampling import balanced_sample, hard_negatives

sample = jax.jit(hard_negatives)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 40), st.booleans())
def test_takes_exactly_the_hardest(seed, count, tied):
    rng = np.random.default_rng(seed)
    difficulty = rng.integers(0, 4, 31) if tied else rng.normal(size=31)
    eligible = rng.random(31) < 0.6
    taken = np.asarray(
        sample(jnp.asarray(difficulty, jnp.float32), jnp.asarray(eligible), jnp.int32(count))
    )
    order = [i for i in np.argsort(-difficulty, kind="stable") if eligible[i]]
    np.testing.assert_array_equal(np.flatnonzero(taken), sorted(order[:count]))


def test_samples_are_the_highest_of_each_group_in_fixed_slots():
    """In numpy; with enough and too few of either group, ties included."""
    take = jax.jit(lambda *arrays: balanced_sample(*arrays, 12, 4))
    rng = np.random.default_rng(0)
    for positives, negatives in ((9, 20), (2, 20), (9, 3), (0, 31), (31, 0), (0, 0)):
        rank = rng.integers(0, 6, 31) / 6
        group = rng.permutation(np.r_[np.ones(positives), -np.ones(negatives), np.zeros(31)][:31])
        sample = take(jnp.asarray(rank, jnp.float32), group > 0, group < 0)
        order = np.argsort(-rank, kind="stable")
        first = [i for i in order if group[i] > 0][:4]
        expected = first + [i for i in order if group[i] < 0][: 12 - len(first)]
        assert np.asarray(sample.index)[sample.valid].tolist() == expected
        np.testing.assert_array_equal(sample.valid, np.arange(12) < len(expected))
        np.testing.assert_array_equal(sample.positive, np.arange(12) < len(first))
