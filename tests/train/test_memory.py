"""What saves memory changes nothing: accumulation with BatchNorm groups, and a state that is handed on."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.nn.conv_norm import ConvNorm
from jdet.nn.norm import Norm
from jdet.parallel import mesh as mesh_lib
from jdet.train import optim, schedule, state, step
from tests.train import fake


class Grouped(fake.FakeDetector):
    """The small detector with jdet's own norm, in groups of two images."""

    def setup(self):
        fake.FakeDetector.setup(self)
        self.layer = ConvNorm(4, Norm("sync_batch", group_size=2), True, strides=2, padding=1)

    def predict(self, images, *, train):
        x = self.layer(images.astype(jnp.float32) / 128.0 - 1.0)
        x = self.head(x.reshape(x.shape[0], -1))
        return x[:, :4] * fake.SIDE, x[:, 4:]


def begin(**overrides):
    config = fake.config(parallel__bn_group_size=2, **overrides)
    mesh = mesh_lib.make_mesh(config)
    lr = schedule.learning_rate(config.optimizer, schedule.resolve(config, 100))
    params, _ = state.abstract_variables(Grouped(), config, 2)
    optimizer = optim.make_optimizer(config.optimizer, lr, params)
    now = state.create_state(Grouped(), optimizer, mesh, config)
    return mesh, now, step.make_train_step(Grouped(), optimizer, lr, mesh, config)


@functools.cache
def run(accumulation, devices=1):
    mesh, now, train_step = begin(train__accumulation=accumulation, parallel__devices=devices)
    losses = []
    for batch in itertools.islice(fake.stream(0), 4):
        now, metrics = train_step(now, mesh_lib.to_global(batch, mesh))
        losses.append(float(metrics["loss"]))
    return losses, jax.device_get(now.params)


@pytest.mark.parametrize("accumulation, devices", [(2, 1), (4, 1), (2, 2)])
def test_accumulation_keeps_normalisers_and_groups(accumulation, devices):
    """Images without objects included: one division by the objects of the whole batch."""
    losses, params = run(accumulation, devices)
    np.testing.assert_allclose(losses, run(1)[0], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), params, run(1)[1]
    )


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_state_is_handed_on(accumulation):
    """Weights, momentum, statistics and their average stand in memory once."""
    mesh, now, train_step = begin(train__accumulation=accumulation, train__ema=0.9)
    batch = mesh_lib.to_global(fake.batch(0), mesh)
    size = sum(x.nbytes for x in jax.tree.leaves(now))
    plan = train_step.lower(now, batch).compile().memory_analysis()
    assert plan.alias_size_in_bytes == size
    after, _ = train_step(now, batch)
    assert all(x.is_deleted() for x in jax.tree.leaves(now))
    assert not any(x.is_deleted() for x in jax.tree.leaves((after, batch)))
