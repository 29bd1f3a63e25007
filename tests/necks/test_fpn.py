import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.interop.torchvision import from_torchvision
from jdet.necks.fpn import EXTRAS, FPN
from jdet.nn.norm import Norm
from jdet.nn.repeat import repeat_to
from tests.golden import load

TAPS = ("c3", "c4", "c5")


@pytest.mark.parametrize(
    "name, extra", [("fpn_maxpool", "pool"), ("fpn_p6p7", "conv_c5")], ids=["pool", "p6p7"]
)
def test_equals_torchvision(name, extra):
    golden = load(name)
    stages = {tap: jnp.asarray(np.moveaxis(golden[f"in.{tap}"], 1, -1)) for tap in TAPS}
    neck = FPN(TAPS, channels=20, extra=extra, extra_relu=True)
    apply = functools.partial(neck.apply, train=False)
    variables = jax.eval_shape(lambda x: neck.init(jax.random.key(0), x, train=False), stages)
    weights = {k[2:]: v for k, v in golden.items() if k.startswith("w.")}
    levels = jax.jit(apply)(from_torchvision(variables, weights), stages)
    expected = [golden[k] for k in golden if k.startswith("out.")]
    assert len(levels) == len(expected) == 3 + EXTRAS[extra]
    for ours, theirs in zip(levels, expected):
        np.testing.assert_allclose(ours, np.moveaxis(theirs, 1, -1), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("height, width", [(4, 6), (3, 5), (5, 4), (2, 3), (7, 3)])
def test_repeats_the_nearest_below(height, width):
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 3 // width
    expected = np.asarray(x)[:, rows][:, :, columns]
    np.testing.assert_array_equal(repeat_to(x, height, width), expected)


def shapes(size=64, **fields):
    neck = FPN(TAPS, **fields)
    stages = {
        tap: jax.ShapeDtypeStruct((2, -(-size // 2**i), -(-size // 2**i), 8 * i), jnp.float32)
        for i, tap in enumerate(TAPS, start=3)
    }
    levels, variables = jax.eval_shape(
        lambda x: neck.init_with_output(jax.random.key(0), x, train=True), stages
    )
    return neck, levels, variables


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("size", [64, 100])
def test_levels_are_as_large_as_said(extra, size):
    neck, levels, variables = shapes(size, extra=extra, channels=32)
    cells = [-(-size // 2**i) for i in (3, 4, 5)]
    cells += neck.extra_sizes(cells[-1])
    assert [level.shape for level in levels] == [(2, n, n, 32) for n in cells]
    biases = sum(leaf.ndim == 1 for leaf in jax.tree.leaves(variables["params"]))
    assert biases == 6 + (2 if extra.startswith("conv") else 0)


def test_norm_takes_the_place_of_biases():
    _, _, variables = shapes(use_norm=True, norm=Norm("batch"), width=0.125)
    for layer in variables["params"].values():
        assert set(layer["conv"]) == {"kernel"} and layer["norm"]["scale"].shape == (32,)
    assert len(variables["batch_stats"]) == 8
    assert "batch_stats" not in shapes(norm=Norm("batch"))[2]


def test_published_parameters():
    """RetinaNet's pyramid on ResNet-50, and that of two-stage detectors."""
    for taps, extra, expected in (
        (TAPS, "conv_c5", 7_997_440),
        (("c2", *TAPS), "pool", 3_344_384),
    ):
        stages = {
            tap: jax.ShapeDtypeStruct((1, 64 >> i, 64 >> i, 256 << i), jnp.float32)
            for i, tap in enumerate(("c2", *TAPS))
        }
        init = functools.partial(FPN(taps, extra=extra).init, train=False)
        variables = jax.eval_shape(init, jax.random.key(0), stages)
        assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == expected


def test_wrong_fields_are_named():
    with pytest.raises(ValueError, match="model.neck.extra='p6'.*conv_c5"):
        FPN(TAPS, extra="p6")
