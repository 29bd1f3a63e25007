import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.nn import padding
from jdet.nn.norm import FrozenBatchNorm, L2Norm, LayerNorm, Norm

X = jnp.asarray(
    np.random.default_rng(0).normal(size=(8, 5, 6, 4)) * np.arange(1, 9)[:, None, None, None] + 3,
    jnp.float32,
)


@functools.partial(jax.jit, static_argnames=("norm", "train"))
def run(norm, x, train=True):
    layer = norm(train=train)
    variables = layer.init(jax.random.key(0), x)
    y, updates = layer.apply(variables, x, mutable=["batch_stats"])
    return y, updates.get("batch_stats", {})


def test_batch_norm_normalises_and_keeps_unbiased_running_variance():
    y, stats = run(Norm("batch", momentum=0.8), X)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, atol=1e-4)
    flat = np.asarray(X).reshape(-1, 4)
    np.testing.assert_allclose(stats["mean"], 0.2 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.8 + 0.2 * flat.var(0, ddof=1), rtol=1e-5)


def test_regions_that_only_fill_up_leave_statistics_as_they_are():
    x = X.reshape(2, 4, 5, 6, 4)
    layer = Norm("batch")(train=True)
    before = {"mean": jnp.full(4, 5.0), "var": jnp.full(4, 4.0)}
    variables = {"params": layer.init(jax.random.key(0), x)["params"], "batch_stats": before}
    for real, moves in ((False, False), (True, True)):
        with padding.regions(jnp.full((2, 4), real)):
            run = jax.jit(lambda *given: layer.apply(*given, mutable=["batch_stats"]))
            _, after = jax.device_get(run(variables, x))
        for key, value in before.items():
            assert (after["batch_stats"][key] != value).any() == moves


def test_sub_groups_are_normalised_apart():
    y, stats = run(Norm("sync_batch", group_size=2), X)
    parts = [run(Norm("batch"), X[i : i + 2]) for i in range(0, 8, 2)]
    np.testing.assert_allclose(y, jnp.concatenate([part for part, _ in parts]), atol=1e-5)
    for key in ("mean", "var"):
        np.testing.assert_allclose(
            stats[key], np.mean([part[key] for _, part in parts], axis=0), rtol=1e-5
        )
    # Plain batch norm knows no groups.
    np.testing.assert_array_equal(run(Norm("batch", group_size=2), X)[0], run(Norm("batch"), X)[0])


def test_group_that_does_not_divide_is_named():
    with pytest.raises(ValueError, match="bn_group_size=3 does not divide the 8"):
        run(Norm("sync_batch", group_size=3), X)


def test_evaluation_uses_running_statistics_and_moves_nothing():
    y, stats = run(Norm("batch"), X, train=False)
    np.testing.assert_allclose(y, X / np.sqrt(1 + 1e-5), rtol=1e-5)
    np.testing.assert_array_equal(stats["mean"], 0)


def test_frozen_norm_has_no_parameters():
    layer = FrozenBatchNorm()
    variables = layer.init(jax.random.key(0), X)
    assert set(variables) == {"batch_stats"}
    stats = {k: jnp.full(4, v) for k, v in dict(mean=1.0, var=4.0, scale=3.0, bias=2.0).items()}
    y, after = layer.apply({"batch_stats": stats}, X, mutable=["batch_stats"])
    np.testing.assert_allclose(y, (X - 1) / np.sqrt(4 + 1e-5) * 3 + 2, rtol=1e-4, atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, after["batch_stats"], stats)


def test_affine_norm_trains_scale_and_bias_of_fixed_statistics():
    layer = Norm("affine_batch")(train=True, initial_scale=3.0)
    variables = layer.init(jax.random.key(0), X)
    stats = {"mean": jnp.full(4, 1.0), "var": jnp.full(4, 4.0)}
    assert set(variables["params"]) == {"scale", "bias"} and set(variables["batch_stats"]) == set(
        stats
    )

    def run(params):
        return layer.apply({"params": params, "batch_stats": stats}, X, mutable=["batch_stats"])

    y, after = run(variables["params"])
    normalised = (X - 1) / np.sqrt(4 + 1e-5)
    np.testing.assert_allclose(y, 3 * normalised, rtol=1e-4, atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, after["batch_stats"], stats)
    gradient = jax.grad(lambda params: run(params)[0].sum())(variables["params"])
    np.testing.assert_allclose(gradient["scale"], normalised.sum((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(gradient["bias"], 240, rtol=1e-6)


def test_layer_norm_equals_flax():
    layer, reference = LayerNorm(), nn.LayerNorm(epsilon=1e-5, use_fast_variance=False)
    params = {"scale": jnp.arange(1.0, 5), "bias": jnp.arange(4.0)}

    def total(layer, params, x):
        y = layer.apply({"params": params}, x)
        return jnp.sum(jnp.sin(y)), y

    differentiated = jax.jit(
        jax.value_and_grad(total, argnums=(1, 2), has_aux=True), static_argnums=0
    )
    (_, ours), gradient = differentiated(layer, params, X)
    (_, theirs), expected = differentiated(reference, params, X)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(ours, theirs)
    jax.tree.map(close, gradient, expected)


def test_group_norm_does_not_mix_images():
    y, _ = run(Norm("group"), X)
    alone, _ = run(Norm("group"), X[:1])
    np.testing.assert_allclose(y[:1], alone, atol=1e-6)
    # Four channels give four groups of one.
    np.testing.assert_allclose(y.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((1, 2)), 1, atol=1e-3)


def test_no_norm_asks_for_a_bias():
    assert Norm("none").needs_bias and not Norm("batch").needs_bias
    assert Norm("none")(train=True)(X) is X


def test_l2_norm_has_the_learned_length():
    layer = L2Norm(initial_scale=20.0)
    variables = layer.init(jax.random.key(0), X)
    length = jnp.linalg.norm(layer.apply(variables, X), axis=-1)
    np.testing.assert_allclose(length, 20, rtol=1e-5)
    np.testing.assert_array_equal(layer.apply(variables, jnp.zeros_like(X)), 0)


@pytest.mark.parametrize(
    "kind", ["batch", "sync_batch", "group", "layer", "frozen_batch", "affine_batch"]
)
def test_bfloat16_in_bfloat16_out_with_float32_statistics(kind):
    rounded = X.astype(jnp.bfloat16)
    low, stats = run(Norm(kind), rounded)
    high, _ = run(Norm(kind), rounded.astype(jnp.float32))
    assert low.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(stats))
    np.testing.assert_allclose(low.astype(jnp.float32), high, atol=0.05, rtol=0.02)


def test_unknown_kind_is_named():
    with pytest.raises(ValueError, match="norm 'instance' does not exist"):
        Norm("instance")
