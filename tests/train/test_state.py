"""Shapes of a state are traced once for a detector and its inputs."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdet.train import state
from jdet.types import Mean
from tests.train import fake

TRACED = []


class Recorded(nn.Module):
    """Writes down the batches that it is traced with."""

    width: int
    table: object = None
    needs = ()

    @nn.compact
    def losses(self, batch, *, train):
        TRACED.append(batch.images.shape[0])
        x = nn.Dense(self.width, name="head")(batch.images.astype(jnp.float32))
        return {"loss": Mean(jnp.sum(x), 1.0)}


def shapes(tree):
    return jax.tree.map(lambda leaf: leaf.shape, tree)


def test_equal_detectors_share_a_trace():
    TRACED.clear()
    config = fake.config()
    params, stats = state.abstract_variables(Recorded(5), config)
    assert (shapes(params), stats) == ({"head": {"kernel": (3, 5), "bias": (5,)}}, {})
    del params["head"]["bias"]  # belongs to the caller
    again, _ = state.abstract_variables(Recorded(5), config)
    assert set(again["head"]) == {"kernel", "bias"} and TRACED == [1]
    state.abstract_variables(Recorded(5), config, 2)
    wider, _ = state.abstract_variables(Recorded(6), config)
    assert wider["head"]["bias"].shape == (6,) and TRACED == [1, 2, 1]


def test_a_field_that_cannot_be_hashed():
    TRACED.clear()
    for _ in range(2):
        params, _ = state.abstract_variables(Recorded(4, jnp.zeros(2)), fake.config())
        assert params["head"]["bias"].shape == (4,)
    assert TRACED == [1, 1]
