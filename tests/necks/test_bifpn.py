"""The bi-directional pyramid against its formulas, with maps of odd sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.necks.bifpn import BiFPN
from jdet.nn.norm import Norm
from tests import harness

TAPS = ("c3", "c4", "c5")


def stages(widths, sizes, dtype=jnp.float32):
    return {
        tap: jax.ShapeDtypeStruct((1, n, n, width), dtype)
        for tap, width, n in zip(TAPS, widths, sizes)
    }


def parameters(neck, shapes):
    init = functools.partial(neck.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), shapes)["params"]


@pytest.mark.parametrize(
    "widths, expected", [((192, 384, 768), 10_185_254), ((512, 1024, 2048), 11_414_054)]
)
def test_published_parameters(widths, expected):
    """With Swin-T as published, with ResNet-50 by the same rule: wider taps alone."""
    found = parameters(BiFPN(TAPS), stages(widths, (8, 4, 2)))
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) == expected


def pooled(x):
    """Maxima over 3×3 windows with a stride of 2, window by window."""
    count, height, width, channels = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    rows, columns = range(0, height, 2), range(0, width, 2)
    return np.stack(
        [np.stack([padded[:, i : i + 3, j : j + 3].max((1, 2)) for j in columns], 1) for i in rows],
        1,
    )


def enlarged(x, size):
    index = np.arange(size) // 2
    return x[:, index][:, :, index]


def reference(params, maps):
    """One pass over four levels, layer by layer, without norms."""

    def conv(name, x):
        kernel, bias = (np.asarray(params[name]["conv"][key]) for key in ("kernel", "bias"))
        reach = len(kernel) // 2
        padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
        taps = [
            padded[:, i : i + x.shape[1], j : j + x.shape[2]] @ kernel[i, j]
            for i in range(len(kernel))
            for j in range(len(kernel))
        ]
        return sum(taps) + bias

    def joined(name, *parts):
        shares = np.maximum(params[f"pass1_{name}_shares"], 0)
        x = sum(share * part for share, part in zip(shares, parts)) / (shares.sum() + 1e-4)
        return conv(f"pass1_{name}", x / (1 + np.exp(-x)))

    maps = [np.asarray(maps[tap]) for tap in TAPS]
    p3, p4, p5 = (conv(f"lateral_{tap}", x) for tap, x in zip(TAPS, maps))
    p6 = conv("lateral_extra1", pooled(maps[-1]))
    t5 = joined("down3", p5, enlarged(p6, 2))
    t4 = joined("down2", p4, enlarged(t5, 3))
    o3 = joined("down1", p3, enlarged(t4, 5))
    o4 = joined("up2", p4, t4, pooled(o3))
    o5 = joined("up3", p5, t5, pooled(o4))
    return [o3, o4, o5, joined("up4", p6, pooled(o5))]


def test_a_pass_is_its_formulas():
    rng = np.random.default_rng(0)
    neck = BiFPN(
        TAPS, channels=3, extra=1, repeats=1, group_norm=False, norm=Norm("none"), kernel_init="he"
    )
    shapes = stages((2, 4, 6), (5, 3, 2))
    maps, params = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32),
        (shapes, parameters(neck, shapes)),
    )
    assert min(jnp.min(x) for name, x in params.items() if name.endswith("shares")) < 0
    levels = jax.jit(functools.partial(neck.apply, train=False))({"params": params}, maps)
    for level, expected in zip(levels, reference(params, maps), strict=True):
        np.testing.assert_allclose(level, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [64, 100])
def test_levels_are_as_large_as_said(size):
    cells = [-(-size // 2**i) for i in (3, 4, 5)]
    neck = BiFPN(TAPS, channels=8, dtype=jnp.bfloat16)
    levels = jax.eval_shape(
        lambda x: neck.init_with_output(jax.random.key(0), x, train=True)[0],
        stages((2, 4, 6), cells, jnp.bfloat16),
    )
    cells += neck.extra_sizes(cells[-1])
    assert [(level.shape, level.dtype) for level in levels] == [
        ((1, n, n, 8), jnp.bfloat16) for n in cells
    ]


def test_shares_start_equal_and_are_learned():
    neck = BiFPN(TAPS, channels=4, extra=0, repeats=1)
    maps = {
        tap: jax.random.normal(jax.random.key(i), x.shape)
        for i, (tap, x) in enumerate(stages((2, 4, 6), (8, 4, 2)).items())
    }
    params = harness.initialise(neck, maps, train=False)["params"]

    @jax.jit
    def gradient(params):
        def loss(params):
            levels = neck.apply({"params": params}, maps, train=True)
            return sum(jnp.sum(level**3) for level in levels)

        return jax.grad(loss)(params)

    found = gradient(params)
    for name, shares in params.items():
        if name.endswith("_shares"):
            assert (shares == 1).all()
            assert jnp.isfinite(found[name]).all() and jnp.any(found[name] != 0), name


def test_wrong_fields_are_named():
    with pytest.raises(ValueError, match=r"model.taps=\('c3', 'c5'\).*twice its stride"):
        BiFPN(("c3", "c5"))
    with pytest.raises(ValueError, match="model.neck.extra=0 with model.taps=.*one level"):
        BiFPN(("c5",), extra=0)
