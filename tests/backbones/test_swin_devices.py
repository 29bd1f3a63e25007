"""Window attention and drop-path give the same losses and gradients however a batch is split."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.backbones.swin import PatchEmbed, SwinBlock
from jdet.types import Mean
from tests.train import fake
from tests.train.test_randomness import loss_and_gradient


class Blocks(nn.Module):
    """A classifier of two Swin blocks, the second shifted, whose branches are often left out."""

    @nn.compact
    def losses(self, batch, *, train=True):
        x = PatchEmbed(8, name="stem")(batch.images.astype(jnp.float32) / 128.0 - 1.0)
        for i in range(2):
            attention = dict(heads=2, window=2, shift=i)
            x = SwinBlock(attention, 16, 0.4, train, nn.initializers.normal(0.5), name=f"block{i}")(
                x
            )
        logits = nn.Dense(fake.CLASSES, name="head")(x.mean((1, 2)))
        wanted = jnp.where(batch.valid[:, 0], batch.labels[:, 0], 0)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), wanted[:, None], axis=1)
        return {"cls": Mean(-picked.sum(), jnp.float32(len(logits)))}


@pytest.fixture(scope="module")
def alone():
    return loss_and_gradient(Blocks(), parallel__devices=1)


@pytest.mark.parametrize("devices", [2, 4])
def test_splits_agree(alone, devices):
    found = loss_and_gradient(Blocks(), parallel__devices=devices)
    np.testing.assert_allclose(found[0], alone[0], rtol=1e-6)
    most = max(np.abs(x).max() for x in jax.tree.leaves(alone[2]))
    assert most > 1e-3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-5 * most), alone[2], found[2]
    )


def test_branches_are_left_out(alone):
    other = loss_and_gradient(Blocks(), step=6, parallel__devices=1)
    assert abs(float(other[0]) - float(alone[0])) > 1e-4
