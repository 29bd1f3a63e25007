import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.backbones.dsod import DSOD
from jdet.detectors.mask_head import MaskHead
from jdet.detectors.ssd import SSDHead
from jdet.necks.dense_prediction import DensePrediction
from jdet.nn import padding
from jdet.nn.conv_norm import ConvNorm
from jdet.nn.fold import fold, pairs
from jdet.nn.norm import Norm
from jdet.nn.residual import BasicBlock, PreactBlock, preact_parts

IMAGES = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
SIZES = np.array([[16, 16], [16, 9]], np.int32)


class Network(nn.Module):
    """Convolutions and norms in every order in which jdet has them."""

    norm: Norm

    @nn.compact
    def __call__(self, x):
        def layer(features, **options):
            return ConvNorm(features, self.norm, False, **options)

        with padding.content(jnp.asarray(SIZES), (16, 16)):
            x = layer(8, strides=2, name="stem")(x)
            x, _ = BasicBlock(layer, 8, name="post")(x)
            parts = preact_parts(self.norm, False, nn.initializers.he_normal(), None)
            x, _ = PreactBlock(**parts, features=16, bottleneck=True, name="pre")(x)
            outputs = SSDHead(3, (2, 2), self.norm, name="head")([x, x], train=False)
        real = jnp.array([[True, False], [True, True]])
        head = MaskHead(2, convs=2, channels=4, norm=self.norm, name="masks")
        return *outputs, head(x.reshape(2, 2, 4, 8, 16), real, train=False)


def filled(network, images=IMAGES):
    """Variables of which no norm is near the identity."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if path[-1].key == "var":
            return rng.uniform(0.3, 3, leaf.shape).astype(np.float32)
        return rng.normal(size=leaf.shape).astype(np.float32) / max(1, leaf.size**0.25)

    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def pairs_of(network, variables, *args, **options):
    with pairs() as found:
        jax.eval_shape(lambda *args: network.apply(*args, **options), variables, *args)
    return found


@pytest.mark.parametrize("kind", ["batch", "frozen_batch"])
def test_folded_norms_leave_the_outputs_as_they_are(kind):
    network = Network(Norm(kind))
    variables = filled(network)
    found = pairs_of(network, variables, IMAGES)
    assert len(found) == 1 + 2 + 2 + 4 + 2

    @jax.jit
    def both(variables):
        folded = fold(variables, found)
        return network.apply(variables, IMAGES), network.apply(folded, IMAGES), folded

    plain, quick, folded = both(variables)
    for one, other in zip(plain, quick, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5 * np.abs(one).max())
    # The norm before the first convolution of a pre-activation block is the only one left.
    assert list(folded["batch_stats"]) == ["pre"] and list(folded["batch_stats"]["pre"]) == [
        "norm1"
    ]
    counts = [
        str(jax.make_jaxpr(network.apply)(v, IMAGES)).count(" mul ") for v in (variables, folded)
    ]
    assert counts[0] - counts[1] >= len(found)


@pytest.mark.parametrize("kind", ["group", "none"])
def test_other_norms_are_left_alone(kind):
    network = Network(Norm(kind))
    variables = filled(network)
    assert pairs_of(network, variables, IMAGES) == []
    assert fold(variables, []) == variables


def test_dense_blocks_fold_what_reads_a_convolution_alone():
    norm = Norm("sync_batch", axis_name="member")
    backbone = DSOD(blocks=(1, 1, 1), width=0.1, norm=norm)
    neck = DensePrediction(("c3", "c4"), width=0.05, norm=norm)

    class Both(nn.Module):
        @nn.compact
        def __call__(self, x):
            stages = backbone.copy(name="backbone", parent=self)(x, train=False)
            return neck.copy(name="neck", parent=self)(stages, train=False)

    images = np.random.default_rng(2).normal(size=(1, 64, 64, 3)).astype(np.float32)
    variables = filled(Both(), images)
    found = pairs_of(Both(), variables, images)
    names = {"/".join(pair.norm) for pair in found}
    stem = {f"backbone/stem/conv{i}/norm" for i in (1, 2, 3)}
    layers = {f"backbone/block{i}/layer1_growth/norm" for i in (1, 2, 3)}
    assert names == stem | layers | {f"neck/extra{i}_2/norm" for i in (1, 2)}

    @jax.jit
    def both(variables):
        return [Both().apply(each, images) for each in (variables, fold(variables, found))]

    plain, quick = both(variables)
    assert len(plain) == 4
    for one, other in zip(plain, quick, strict=True):
        assert np.abs(one).max() > 0
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5 * np.abs(one).max())
