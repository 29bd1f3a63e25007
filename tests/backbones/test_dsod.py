import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.backbones.dsod import DSOD, _DenseBlock
from jdet.nn.conv_norm import NormConv
from jdet.nn.norm import Norm


def shapes(model, size=300):
    stages = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0],
        jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),
    )
    return {name: (stage.shape[1], stage.shape[3]) for name, stage in stages.items()}


@pytest.mark.parametrize(
    "fields, expected",
    [
        (dict(), dict(c2=(75, 416), c3=(38, 800), c4=(19, 1568))),
        (dict(last_channels=256), dict(c2=(75, 416), c3=(38, 800), c4=(19, 256))),
        (dict(transition_base=64), dict(c2=(75, 352), c3=(38, 736), c4=(19, 1504))),
        (dict(stem=False), dict(c2=(75, 352), c3=(38, 736), c4=(19, 1504))),
        (dict(blocks=(6, 8, 8)), dict(c2=(75, 416), c3=(38, 800), c4=(19, 1184))),
        (
            dict(first=32, bottleneck=12, growth=16, compression=0.5, stem=False),
            dict(c2=(75, 64), c3=(38, 96), c4=(19, 120)),
        ),
        (dict(width=0.5), dict(c2=(75, 208), c3=(38, 400), c4=(19, 784))),
    ],
)
def test_stages_at_300(fields, expected):
    assert shapes(DSOD(**fields)) == expected


@pytest.mark.parametrize("stem", [True, False])
@pytest.mark.parametrize("size", [33, 50, 321])
def test_maps_halve_rounding_up_at_any_size(size, stem):
    found = shapes(DSOD(width=0.125, blocks=(1, 1, 1), stem=stem), size)
    assert [side for side, _ in found.values()] == [-(-size // 2**n) for n in (2, 3, 4)]


def test_a_block_concatenates_its_input_and_every_layers_output():
    """With an identity for transition the block's output is the concatenation itself."""
    layer = functools.partial(NormConv, norm=Norm("none"), train=True)
    block = _DenseBlock(layer, depth=3, bottleneck=5, growth=2, features=4 + 3 * 2)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 4)), jnp.float32)
    params = jax.jit(block.init)(jax.random.key(0), x)["params"]
    params["transition"]["conv"]["kernel"] = jnp.eye(10).reshape(1, 1, 10, 10)

    @jax.jit
    def output(params):
        return block.apply({"params": params}, x)

    whole = output(params)
    np.testing.assert_array_equal(whole[..., :4], jax.nn.relu(x))
    # A layer's own two channels are gone without it, those before it stay, those after it change.
    broken = jax.tree.map(jnp.copy, params)
    broken["layer2_growth"]["conv"]["kernel"] *= 0
    part = output(broken)
    np.testing.assert_array_equal(part[..., :6], whole[..., :6])
    assert (part[..., 6:8] == 0).all() and (whole[..., 6:8] != 0).any()
    assert (part[..., 8:] != whole[..., 8:]).any()


def test_without_norms_every_convolution_has_a_bias_and_a_relu_before_it():
    model = DSOD(width=0.125, blocks=(2, 1, 1), norm=Norm("none"))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 32, 3)), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=True), x)
    assert set(variables) == {"params"}
    leaves = [
        [key.key for key in path]
        for path, _ in jax.tree_util.tree_flatten_with_path(variables["params"])[0]
    ]
    assert {leaf[-1] for leaf in leaves} == {"kernel", "bias"}
    convolutions = {"/".join(leaf[:-1]) for leaf in leaves}
    assert len(leaves) == 2 * len(convolutions) == 2 * (3 + 2 * 4 + 3)

    layer = NormConv(3, Norm("none"), True, kernel_size=1)
    variables = layer.init(jax.random.key(0), x)
    np.testing.assert_array_equal(
        layer.apply(variables, x), layer.apply(variables, jnp.abs(x) * (x > 0))
    )
    np.testing.assert_array_equal(layer.apply(variables, -jnp.abs(x)), 0)


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            dict(compression=0.001),
            r"compression=0.001 leaves a transition no channel: \[0, 0, 0, 0\]",
        ),
        (dict(blocks=(6, 8)), r"model.backbone.blocks=\(6, 8\); give the dense layers of three"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        DSOD(**fields)
