"""The compiled step: the same result however the batch is split, and a stop at the first NaN."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.parallel import mesh as mesh_lib
from jdet.train import optim, schedule, state, step
from tests.train import fake


def build(config, detector):
    mesh = mesh_lib.make_mesh(config)
    lr = schedule.learning_rate(config.optimizer, schedule.resolve(config, 100))
    params, _ = state.abstract_variables(detector, config)
    optimizer = optim.make_optimizer(config.optimizer, lr, params)
    begin = state.create_state(detector, optimizer, mesh, config)
    return mesh, begin, step.make_train_step(detector, optimizer, lr, mesh, config)


@functools.cache
def run(detector, steps=3, **overrides):
    config = fake.config(**overrides)
    mesh, now, train_step = build(config, detector)
    history = []
    for batch in itertools.islice(fake.stream(0), steps):
        now, metrics = train_step(now, mesh_lib.to_global(batch, mesh))
        history.append(jax.device_get(metrics))
    assert train_step._cache_size() == 1
    return jax.device_get(now), history


def assert_same(a, b, rtol=2e-5, atol=2e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def reference(config, detector, steps):
    """The same run written down plainly: one device, one batch, no mesh, Caffe's update."""
    begin = jax.jit(lambda: state.init_variables(detector, config, 8))()
    params, stats = jax.device_get(begin)
    velocity = jax.tree.map(np.zeros_like, params)
    losses = []
    wd, lr = config.optimizer.weight_decay, config.optimizer.lr

    @jax.jit
    def gradient(params, stats, batch):
        def loss(params):
            variables = {"params": params, "batch_stats": stats}
            means, updates = detector.apply(
                variables, batch, train=True, method="losses", mutable=["batch_stats"]
            )
            total = sum(m.total / jnp.maximum(m.weight, 1) for m in means.values())
            return total, updates.get("batch_stats", {})

        return jax.value_and_grad(loss, has_aux=True)(params)

    for batch in itertools.islice(fake.stream(0), steps):
        (loss, stats), grads = jax.device_get(gradient(params, stats, batch))
        losses.append(float(loss))
        velocity = jax.tree.map(
            lambda v, g, w: 0.9 * v + lr * (g + wd * w), velocity, grads, params
        )
        params = jax.tree.map(lambda w, v: w - v, params, velocity)
    return params, stats, losses


PLAIN = dict(optimizer__bias_lr=1.0, optimizer__decay_mask="all", optimizer__schedule="constant")


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_step_equals_plain_reference(norm):
    config = fake.config(**PLAIN)
    detector = fake.FakeDetector(norm)
    params, stats, losses = reference(config, detector, 3)
    end, history = run(detector, **PLAIN)
    assert_same(end.params, params)
    assert_same(end.stats, stats)
    np.testing.assert_allclose([m["loss"] for m in history], losses, rtol=1e-6)
    assert end.step == 3 and bool(end.finite)


@pytest.mark.parametrize(
    "norm, overrides",
    [
        ("sync", dict(parallel__devices=2)),
        ("sync", dict(parallel__devices=4)),
        ("none", dict(parallel__devices=4)),
        ("none", dict(train__accumulation=2)),
        ("none", dict(train__accumulation=4)),
        ("none", dict(train__accumulation=2, parallel__devices=4)),
    ],
)
def test_split_of_the_batch_does_not_matter(norm, overrides):
    one, one_history = run(fake.FakeDetector(norm))
    many, many_history = run(fake.FakeDetector(norm), **overrides)
    assert_same(one.params, many.params)
    assert_same(one.stats, many.stats)
    assert_same(one_history, many_history)


@functools.partial(jax.jit, static_argnums=0)
def losses(detector, params, stats, batch):
    """Loss parts of one batch on one device, and the statistics after it."""
    variables = {"params": params, "batch_stats": stats}
    means, updates = detector.apply(
        variables, batch, train=True, method="losses", mutable=["batch_stats"]
    )
    return means, updates.get("batch_stats", {})


def halves(batch):
    return [jax.tree.map(lambda x: x[rows], batch) for rows in (slice(0, 4), slice(4, 8))]  # noqa: B023


def test_bn_groups_and_running_statistics():
    """Teams of two devices: statistics over four images each, running ones averaged over teams."""
    config = fake.config(parallel__devices=4, parallel__bn_group_size=4, train__steps=1)
    mesh, begin, train_step = build(config, fake.FakeDetector("sync"))
    assert dict(mesh.shape) == {"group": 2, "member": 2}
    before = jax.device_get(begin)
    end, _ = train_step(begin, mesh_lib.to_global(fake.batch(0), mesh))
    each = [
        losses(fake.FakeDetector("batch"), before.params, before.stats, half)[1]
        for half in halves(fake.batch(0))
    ]
    assert_same(end.stats, jax.tree.map(lambda a, b: (a + b) / 2, *each))


def test_accumulation_updates_statistics_one_micro_batch_after_the_other():
    config = fake.config(train__accumulation=2, train__steps=1)
    detector = fake.FakeDetector("batch")
    mesh, begin, train_step = build(config, detector)
    before = jax.device_get(begin)
    end, _ = train_step(begin, mesh_lib.to_global(fake.batch(0), mesh))
    stats = before.stats
    for half in halves(fake.batch(0)):
        stats = losses(detector, before.params, stats, half)[1]
    assert_same(end.stats, stats)


@pytest.mark.parametrize("overrides", [dict(parallel__devices=2), dict(train__accumulation=2)])
def test_per_device_normaliser_is_the_mean_of_the_parts(overrides):
    config = fake.config(train__loss_norm="per_device", train__steps=1, **overrides)
    detector = fake.FakeDetector("none")
    mesh, begin, train_step = build(config, detector)
    params = jax.device_get(begin.params)
    _, metrics = train_step(begin, mesh_lib.to_global(fake.batch(0), mesh))

    def loss(batch):
        means, _ = losses(detector, params, {}, batch)
        return sum(m.total / jnp.maximum(m.weight, 1) for m in means.values())

    parts = [float(loss(half)) for half in halves(fake.batch(0))]
    np.testing.assert_allclose(metrics["loss"], np.mean(parts), rtol=1e-6)
    assert abs(float(loss(fake.batch(0))) - metrics["loss"]) > 1e-4


def convolutions(config, detector):
    mesh, begin, train_step = build(config, detector)
    lowered = train_step.lower(begin, mesh_lib.to_global(fake.batch(0), mesh))
    text = lowered.compile().as_text()
    return text.count(" convolution("), len(re.findall(r" all-reduce(?:-start)?\(", text))


@pytest.mark.parametrize("norm", ["none", "batch", "sync"])
def test_first_pass_of_accumulation_has_no_network(norm):
    """No convolution and no synchronised statistics are left in the pass for the weights."""
    detector = fake.FakeDetector(norm)
    plain = convolutions(fake.config(parallel__devices=2), detector)
    assert plain[0] == 2  # forward, and the gradient of the kernel
    config = fake.config(parallel__devices=2, train__accumulation=2)
    # CPUs run micro-batches one after the other without a loop.
    assert convolutions(config, detector) == (2 * plain[0], plain[1])


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_one_device_has_nobody_to_exchange_with(norm):
    """A sum over it alone would be left in the program on CPUs, with a copy of all gradients."""
    for overrides in ({}, dict(train__accumulation=2)):
        assert convolutions(fake.config(**overrides), fake.FakeDetector(norm))[1] == 0


def test_first_non_finite_loss_freezes_the_state():
    """Batch 1 holds image 12: its step and all later ones change nothing but the flag."""
    detector = fake.FakeDetector("batch", bad_index=12)
    good, _ = run(detector, 1, train__ema=0.9)
    end, history = run(detector, 3, train__ema=0.9)
    assert [bool(m["finite"]) for m in history] == [True, False, False]
    assert np.isnan(history[1]["loss"]) and np.isfinite(history[1]["loss/cls"])
    assert not end.finite and good.finite
    jax.tree.map(np.testing.assert_array_equal, good, end._replace(finite=np.bool_(True)))


def test_diagnosis_names_the_modules():
    config = fake.config()
    detector = fake.FakeDetector("none", bad_index=3)
    mesh, begin, _ = build(config, detector)
    diagnose = step.make_diagnosis(detector, mesh, config)
    bad = jax.device_get(diagnose(begin, mesh_lib.to_global(fake.batch(0), mesh)))
    assert set(bad) == {"loss", "loss/loc", "loss/cls", "grad_norm/backbone", "grad_norm/head"}
    assert np.isnan(bad["loss/loc"]) and np.isnan(bad["grad_norm/head"])
    fine = jax.device_get(diagnose(begin, mesh_lib.to_global(fake.batch(1), mesh)))
    assert all(np.isfinite(v) for v in fine.values())


def test_image_without_objects_moves_nothing_but_decay():
    config = fake.config(optimizer__weight_decay=0.0)
    mesh, begin, train_step = build(config, fake.FakeDetector("none"))
    before = jax.device_get(begin.params)
    empty = fake.batch(0)._replace(valid=np.zeros((8, fake.OBJECTS), bool))
    end, metrics = train_step(begin, mesh_lib.to_global(empty, mesh))
    assert metrics["loss"] == 0 and metrics["grad_norm"] == 0
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(end.params))


@pytest.mark.parametrize("norm", ["none", "batch", "sync"])
def test_moving_average_follows_with_warm_up(norm):
    config = fake.config(train__ema=0.15, parallel__devices=2)
    mesh, now, train_step = build(config, fake.FakeDetector(norm))
    ema = jax.device_get({"params": now.params, "stats": now.stats})
    for k in (1, 2):
        now, _ = train_step(now, mesh_lib.to_global(fake.batch(k), mesh))
        end, rate = jax.device_get(now), min(0.15, k / (9 + k))
        latest = {"params": end.params, "stats": end.stats}
        ema = jax.tree.map(lambda e, x, r=rate: r * e + (1 - r) * x, ema, latest)
        assert_same(end.ema, ema)


def test_dropout_is_a_function_of_seed_and_step():
    detector = fake.FakeDetector("none", dropout=0.5)
    still = dict(optimizer__lr=1e-30)
    mesh, now, train_step = build(fake.config(**still), detector)
    seen = []
    for _ in range(2):  # the same batch and weights, another step
        now, metrics = train_step(now, mesh_lib.to_global(fake.batch(0), mesh))
        seen.append(float(metrics["loss"]))
    assert seen[0] != seen[1]
    (again, other), first = (run(detector, 1, seed=seed, **still)[1] for seed in (0, 1)), seen[0]
    assert again[0]["loss"] == first and other[0]["loss"] != first


def test_eval_variables_and_count():
    end, _ = run(fake.FakeDetector("batch", bad_index=12), 1, train__ema=0.9)
    average, raw = state.eval_variables(end, True), state.eval_variables(end, False)
    assert average["params"] is end.ema["params"] and average["batch_stats"] is end.ema["stats"]
    assert raw["params"] is end.params and raw["batch_stats"] is end.stats
    plain, _ = run(fake.FakeDetector("none"))
    assert set(state.eval_variables(plain, True)) == {"params"}
    side = fake.SIDE // 2
    head = side * side * 4 * (4 + fake.CLASSES) + 4 + fake.CLASSES
    assert state.count_parameters(plain.params) == 3 * 3 * 3 * 4 + 4 + head
    shapes, _ = state.abstract_variables(fake.FakeDetector("none"), fake.config())
    assert state.count_parameters(shapes) == state.count_parameters(plain.params)
