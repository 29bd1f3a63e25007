import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.necks.dense_prediction import DensePrediction
from jdet.nn.norm import Norm
from tests import harness

TAPS = ("c3", "c4")


def random_stages(c3, c4, size=80, seed=0):
    rng = np.random.default_rng(seed)
    sides = {"c3": (-(-size // 8), c3), "c4": (-(-size // 16), c4)}
    return {
        k: jnp.asarray(rng.normal(size=(2, n, n, c)), jnp.float32) for k, (n, c) in sides.items()
    }


def shapes(neck, size, c3=800, c4=256):
    stages = {
        name: jax.ShapeDtypeStruct(
            (1, -(-size // stride), -(-size // stride), channels), jnp.float32
        )
        for name, stride, channels in (("c3", 8, c3), ("c4", 16, c4))
    }
    levels = jax.eval_shape(
        lambda stages: neck.init_with_output(jax.random.key(0), stages, train=False)[0], stages
    )
    return [level.shape[1] for level in levels], [level.shape[3] for level in levels]


@pytest.mark.parametrize(
    "size, last_scale, sides",
    [
        (300, "1x1", [38, 19, 10, 5, 3, 1]),
        (300, "2x2", [38, 19, 10, 5, 3, 2]),
        (512, "1x1", [64, 32, 16, 8, 4, 2, 1]),
        (512, "2x2", [64, 32, 16, 8, 4, 2, 1]),
        (128, "1x1", [16, 8, 4, 2, 1]),
        (321, "2x2", [41, 21, 11, 6, 3, 2]),
    ],
)
@pytest.mark.parametrize("dense", [True, False])
def test_levels(size, last_scale, sides, dense):
    neck = DensePrediction(TAPS, dense=dense, last_scale=last_scale)
    found, channels = shapes(neck, size)
    assert found == sides
    assert neck.extra_sizes(sides[1]) == sides[2:]
    c4 = 512 if dense else 256
    assert channels == [800, c4, 512] + [256] * (len(sides) - 3)


def runner(neck, stages):
    """A function from a change of the parameters to levels."""
    params = harness.initialise(neck, stages, train=False)["params"]
    apply = jax.jit(lambda params: neck.apply({"params": params}, stages, train=False))
    return lambda change=lambda params: params: apply(change(jax.tree.map(jnp.copy, params)))


@pytest.mark.parametrize("last_scale", ["1x1", "2x2"])
def test_halves_are_learned_and_reused_in_the_published_order(last_scale):
    """Scale 2 is (learned, reused), later ones (reused, learned); without its kernel a half is zero."""
    neck = DensePrediction(TAPS, last_scale=last_scale, norm=Norm("none"), width=1 / 32)
    stages = random_stages(12, 8)
    run = runner(neck, stages)
    whole = run()
    assert [level.shape[-1] for level in whole] == [12, 16, 16, 8]
    np.testing.assert_array_equal(whole[0], stages["c3"])
    np.testing.assert_array_equal(whole[1][..., :8], stages["c4"])

    def without(*names):
        def change(params):
            for name in names:
                params[name]["conv"]["kernel"] *= 0
            return params

        return run(change)

    assert (without("c4_reused")[1][..., 8:] == 0).all() and (whole[1][..., 8:] != 0).any()
    for level, name, half in ((2, "extra1", 8), (3, "extra2", 4)):
        for part, kept, gone in (
            ("_reused", slice(half, None), slice(None, half)),
            ("_2", slice(None, half), slice(half, None)),
        ):
            found = without(name + part)
            np.testing.assert_array_equal(found[level][..., kept], whole[level][..., kept])
            assert (found[level][..., gone] == 0).all() and (whole[level][..., gone] != 0).any()


def test_reused_half_pools_before_its_convolution():
    """An identity kernel and no norm: the reused half is the rectified maximum of 2×2 windows."""
    neck = DensePrediction(TAPS, norm=Norm("none"), width=1 / 64)
    stages = random_stages(4, 4, size=64)

    def identity(params):
        params["c4_reused"]["conv"]["kernel"] = jnp.eye(4).reshape(1, 1, 4, 4)
        return params

    found = runner(neck, stages)(identity)[1][..., 4:]
    c3 = np.asarray(stages["c3"]).reshape(2, 4, 2, 4, 2, 4)
    np.testing.assert_array_equal(found, np.maximum(c3.max((2, 4)), 0))


def test_last_scale_has_the_same_parameters():
    stages = random_stages(12, 8)
    trees = [
        jax.eval_shape(
            lambda s, k=k: DensePrediction(TAPS, last_scale=k).init(
                jax.random.key(0), s, train=False
            ),
            stages,
        )
        for k in ("1x1", "2x2")
    ]
    assert jax.tree.map(lambda x: x.shape, trees[0]) == jax.tree.map(lambda x: x.shape, trees[1])


def test_wrong_fields_are_named():
    with pytest.raises(ValueError, match=r"model.neck.last_scale='3x3'.*1x1"):
        DensePrediction(TAPS, last_scale="3x3")
    with pytest.raises(ValueError, match=r"model.taps=\('c2', 'c4'\).*twice its stride"):
        DensePrediction(("c2", "c4"))
    assert DensePrediction(("c2", "c4"), dense=False).extra_sizes(3) == [1]
