"""The optimiser against Caffe's update written out in numpy, and the rules that steer it."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdet.train import moments, optim
from jdet.types import ConfigError
from tests.train import fake

PARAMS = {
    "backbone": {
        "root": {"conv": {"kernel": (3, 3, 2, 2)}, "norm": {"scale": (2,), "bias": (2,)}},
        "stage1_block0": {"conv1": {"kernel": (3, 3, 2, 2)}, "norm1": {"scale": (2,)}},
        "vgg": {"conv4_3": {"kernel": (1, 1, 2, 2), "bias": (2,)}},
    },
    "head": {
        "l2norm0": {"scale": (2,)},
        "loc0": {"kernel": (3, 3, 2, 4), "bias": (4,)},
        "loc0_norm": {"scale": (4,), "bias": (4,)},
    },
}
# Caffe's lr_mult and decay_mult of each, in the order of the tree.
CAFFE = {
    "backbone/root/conv/kernel": (1, 1),
    "backbone/root/norm/bias": (1, 1),
    "backbone/root/norm/scale": (1, 1),
    "backbone/stage1_block0/conv1/kernel": (1, 1),
    "backbone/stage1_block0/norm1/scale": (1, 1),
    "backbone/vgg/conv4_3/bias": (2, 0),
    "backbone/vgg/conv4_3/kernel": (1, 1),
    "head/l2norm0/scale": (1, 1),
    "head/loc0/bias": (2, 0),
    "head/loc0/kernel": (1, 1),
    "head/loc0_norm/bias": (1, 0),
    "head/loc0_norm/scale": (1, 0),
}


def tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: (scale * rng.normal(size=shape)).astype(np.float32),
        PARAMS,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def flat(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(x) for p, x in leaves}


def settings(**overrides):
    return fake.config(**{f"optimizer__{k}": v for k, v in overrides.items()}).optimizer


def dropping(step):
    """A rate that drops tenfold at step 2, while the momentum is still full."""
    return jnp.where(step < 2, 0.1, 0.01)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_equals_caffe(nesterov, clip):
    """SGDSolver and NesterovSolver: clip, regularise, multiply by the rate, then accumulate."""
    config = settings(nesterov=nesterov, clip_norm=clip, weight_decay=5e-2)
    params = tree(0)
    optimizer = optim.make_optimizer(config, dropping, params)
    state = optimizer.init(params)
    weights = flat(params)
    history = {path: np.zeros_like(w) for path, w in weights.items()}
    for step in range(5):
        grads = tree(step + 1, 0.3)
        updates, state = jax.jit(optimizer.update)(grads, state, params)
        params = optax.apply_updates(params, updates)

        rate, diffs = (0.1, 0.1, 0.01, 0.01, 0.01)[step], flat(grads)
        if clip:
            norm = np.sqrt(sum((d.astype(np.float64) ** 2).sum() for d in diffs.values()))
            diffs = {path: d * min(1, clip / norm) for path, d in diffs.items()}
        for path, w in weights.items():
            lr_mult, decay_mult = CAFFE[path]
            diff = diffs[path] + 5e-2 * decay_mult * w
            before = history[path]
            history[path] = 0.9 * before + rate * lr_mult * diff
            update = 1.9 * history[path] - 0.9 * before if nesterov else history[path]
            weights[path] = w - update
        for path, value in flat(params).items():
            np.testing.assert_allclose(value, weights[path], rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_equals_adamw(clip):
    """optax.adamw on every group by itself, with the rate and decay of its rule, at a rate that drops."""
    rules = (("head/.*/kernel|head/loc0/kernel", 0.5, 3.0), ("backbone/root/.*", 0.0, 0.0))
    config = settings(
        name="adamw", weight_decay=0.05, beta2=0.99, decay_mask="no_norm_decay", rules=rules
    )
    config.clip_norm, config.bias_lr = clip, 1.0
    params = ours = tree(0)
    optimizer = optim.make_optimizer(config, dropping, params)
    state = optimizer.init(params)
    expected = flat(params)
    own = {}
    for path in expected:
        lr, decay = 1.0, float(path.endswith("kernel"))
        if path == "head/loc0/kernel":
            lr, decay = 0.5, 3.0
        if not path.startswith("backbone/root/"):
            rate = lambda step, lr=lr: lr * dropping(step)  # noqa: E731
            peer = optax.adamw(rate, 0.9, 0.99, 1e-8, weight_decay=0.05 * decay)
            own[path] = peer, peer.init(expected[path])
    for step in range(5):
        grads = tree(step + 1, 0.3)
        updates, state = jax.jit(optimizer.update)(grads, state, ours)
        ours = optax.apply_updates(ours, updates)
        grads = {path: grad for path, grad in flat(grads).items() if path in own}
        if clip:
            norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads.values()))
            grads = {path: g * np.float32(min(1, clip / norm)) for path, g in grads.items()}
        for path, (peer, held) in own.items():
            update, held = peer.update(grads[path], held, expected[path])
            own[path] = peer, held
            expected[path] = np.asarray(optax.apply_updates(expected[path], update))
    for path, value in flat(ours).items():
        np.testing.assert_allclose(value, expected[path], rtol=2e-6, atol=1e-7, err_msg=path)
        assert np.array_equal(value, flat(params)[path]) == (path not in own)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_scale_of_the_rate(name):
    """It multiplies the rate: of SGD before the momentum, so that a buffer keeps what it has."""
    config = settings(name=name, weight_decay=0.0)
    params, grads = tree(0), tree(1)
    optimizer = optim.make_optimizer(config, dropping, params)
    begin = optimizer.init(params)

    def step(state, **scale):
        updates, state = jax.jit(optimizer.update)(grads, state, params, **scale)
        return flat(updates), state

    (plain, _), (one, after), (tenth, _) = (
        step(begin, **scale) for scale in ({}, dict(lr_scale=1.0), dict(lr_scale=0.1))
    )
    for path, value in plain.items():
        np.testing.assert_array_equal(one[path], value)
        np.testing.assert_allclose(tenth[path], 0.1 * value, rtol=1e-5)
    stopped, _ = step(after, lr_scale=0.0)
    for path, value in stopped.items():
        expected = 0.9 * one[path] if name == "sgd" else 0 * value
        np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("overrides", [{}, {"nesterov": True}, {"name": "adamw"}])
def test_everything_is_updated_in_place_and_nothing_that_is_not_finite_gets_in(overrides):
    params = tree(0)
    optimizer = optim.make_optimizer(settings(**overrides), dropping, params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, grads, finite):
        updates, state = optimizer.update(grads, state, params, finite=finite)
        return moments.keep(finite, optax.apply_updates(params, updates), params), state

    now = jax.tree.map(jnp.asarray, (params, optimizer.init(params)))
    program = step.lower(*now, tree(1), True).compile()
    assert not re.search(r"f32\[\d\S* copy\(", program.as_text())
    now = step(*now, tree(1), True)
    before = jax.device_get(now)
    after = jax.device_get(step(*now, jax.tree.map(lambda g: np.nan * g, tree(2)), False))
    jax.tree.map(np.testing.assert_array_equal, after, before)
    assert not np.array_equal(flat(before[0])["head/loc0/kernel"], params["head"]["loc0"]["kernel"])


def factors(config, params):
    """Learning-rate and decay factor of every parameter, read off one update each."""
    zero = jax.tree.map(np.zeros_like, params)
    one = jax.tree.map(np.ones_like, params)

    def update(grads, weights):
        optimizer = optim.make_optimizer(config, lambda step: 1.0, params)
        return flat(optimizer.update(grads, optimizer.init(params), weights)[0])

    rate, decay = update(one, zero), update(zero, one)
    wd = config.weight_decay
    return {
        k: (-v.mean(), decay[k].mean() / v.mean() / wd if v.any() else 0) for k, v in rate.items()
    }


def assert_factors(config, expected):
    found = factors(config, tree(0))
    for path, (rate, decay) in expected.items():
        np.testing.assert_allclose(found[path], (rate, decay), rtol=1e-5, err_msg=path)


def test_masks():
    assert_factors(settings(decay_mask="caffe"), CAFFE)
    kernels = {k: (r, float(k.endswith("kernel"))) for k, (r, _) in CAFFE.items()}
    assert_factors(settings(decay_mask="kernels"), kernels)
    assert_factors(settings(decay_mask="all"), {k: (r, 1) for k, (r, _) in CAFFE.items()})
    tables = tree(0)
    tables["backbone"]["attention"] = {"relative_position_bias": np.ones((3, 2), np.float32)}
    expected = {k: (r, float(k.endswith("kernel"))) for k, (r, _) in CAFFE.items()}
    expected["backbone/attention/relative_position_bias"] = (1, 0)
    found = factors(settings(decay_mask="no_norm_decay"), tables)
    assert found == {k: pytest.approx(v, rel=1e-5) for k, v in expected.items()}
    slow = {k: (1, d) for k, (_, d) in CAFFE.items()}
    assert_factors(settings(decay_mask="caffe", bias_lr=1.0), slow)


def test_rules_of_the_config_come_first():
    rules = ((r"backbone/root/.*", 0.0, 0.0), (r".*/loc0/kernel", 0.5, 3.0))
    expected = {
        **CAFFE,
        **{k: (0, 0) for k in CAFFE if k.startswith("backbone/root/")},
        "head/loc0/kernel": (0.5, 3.0),
    }
    config = settings(rules=rules)
    assert_factors(config, expected)
    uses = optim.parameter_rules(config, tree(0))
    assert uses[0] == optim.RuleUse(r"backbone/root/.*", 0.0, 0.0, 3, 40)
    assert sum(use.parameters for use in uses) == sum(x.size for x in jax.tree.leaves(tree(0)))
    text = optim.describe_rules(uses)
    assert "40 of them FROZEN" in text and r"backbone/root/.*" in text
    plain = optim.describe_rules(optim.parameter_rules(settings(), tree(0)))
    assert "nothing is frozen" in plain


def test_refusals():
    odd = {"head": {"queries": np.zeros((3, 4), np.float32)}}
    with pytest.raises(ConfigError, match=r"'head/queries'.*optimizer.rules.*head/queries"):
        optim.make_optimizer(settings(), dropping, odd)
    optim.make_optimizer(settings(rules=(("head/queries", 1.0, 0.0),)), dropping, odd)
    with pytest.raises(ConfigError, match=r"'backbon/.*' decides for no parameter"):
        optim.make_optimizer(settings(rules=(("backbon/.*", 0.0, 0.0),)), dropping, tree(0))
    with pytest.raises(ConfigError, match=r"holds \('\(', 1.0, 1.0\)"):
        optim.make_optimizer(settings(rules=(("(", 1.0, 1.0),)), dropping, tree(0))
    with pytest.raises(ConfigError, match=r"holds \('a', 1.0\)"):
        optim.make_optimizer(settings(rules=(("a", 1.0),)), dropping, tree(0))
    for wrong, message in (
        (dict(momentum=1.0), r"optimizer.momentum=1.0 must be in \[0, 1\)"),
        (dict(name="adamw", beta2=1.0), "optimizer.beta2=1.0"),
        (dict(name="adamw", epsilon=0.0), "optimizer.epsilon=0.0 must be above 0"),
        (dict(name="adam"), "optimizer.name='adam' does not exist; there are sgd, adamw"),
        (dict(rules=((".*", 0.0, 1.0),)), "freeze every parameter"),
    ):
        with pytest.raises(ConfigError, match=message):
            optim.make_optimizer(settings(**wrong), dropping, tree(0))
    optim.make_optimizer(settings(name="adamw", momentum=1.0), dropping, tree(0))  # of sgd alone
    optim.make_optimizer(settings(beta2=1.0), dropping, tree(0))  # of adamw alone
    with pytest.raises(ConfigError, match="decay_mask='none'.*caffe, kernels, no_norm_decay, all"):
        optim.make_optimizer(settings(decay_mask="none"), dropping, tree(0))


def test_shapes_are_enough():
    shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, tree(0)))
    optim.make_optimizer(settings(), dropping, shapes).init(tree(0))
    assert optim.parameter_rules(settings(), shapes) == optim.parameter_rules(settings(), tree(0))
