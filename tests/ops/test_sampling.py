import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jdet.ops.sampling import hard_negatives

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
