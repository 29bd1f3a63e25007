"""Recipe arithmetic against the published schedules, and its refusals."""

import jax
import numpy as np
import optax
import pytest

from jdet.config import get_defaults
from jdet.train import schedule
from jdet.types import ConfigError


def recipe(**overrides):
    config = get_defaults()
    config.train.steps = 1000
    for key, value in overrides.items():
        group, _, name = key.partition("__")
        config[group][name] = value
    return config


def rates(config, steps, **kwargs):
    resolved = schedule.resolve(config, kwargs.pop("num_examples", 1000), devices=1)
    fn = jax.jit(schedule.learning_rate(config.optimizer, resolved))
    return [float(fn(step)) for step in steps]


def test_scratchdet_voc():
    """ScratchDet, sec. 4.1: 0.05, a tenth at 45k, 75k and 95k of 100k steps of 128 images."""
    config = recipe(train__steps=100_000, train__batch_size=128)
    resolved = schedule.resolve(config, 16_551, devices=8)
    assert resolved.boundaries == (45_000, 75_000, 95_000)
    assert (resolved.batch_per_device, resolved.peak_lr) == (16, 0.05)
    assert resolved.epochs == pytest.approx(773, abs=0.5)
    at = rates(config, (0, 44_999, 45_000, 74_999, 75_000, 94_999, 95_000, 99_999))
    expected = [0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005, 0.00005, 0.00005]
    np.testing.assert_allclose(at, expected, rtol=1e-6)


def test_dsod_voc():
    """DSOD, sec. 4.1: 0.1, a tenth every 20k steps."""
    config = recipe(
        train__steps=100_000,
        train__batch_size=128,
        optimizer__lr=0.1,
        optimizer__boundaries=(20_000, 40_000, 60_000, 80_000),
    )
    at = rates(config, (0, 20_000, 40_000, 60_000, 80_000))
    np.testing.assert_allclose(at, [1e-1, 1e-2, 1e-3, 1e-4, 1e-5], rtol=1e-6)


def test_linear_scaling_and_warm_up():
    config = recipe(train__batch_size=32, optimizer__warmup=100, optimizer__warmup_start=0.2)
    peak = 0.05 * 32 / 128
    expected = [0.2 * peak, 0.6 * peak, 0.992 * peak, peak, peak, 0.1 * peak]
    np.testing.assert_allclose(rates(config, (0, 50, 99, 100, 449, 450)), expected, rtol=1e-5)
    unscaled = recipe(train__batch_size=32, optimizer__reference_batch=0)
    np.testing.assert_allclose(rates(unscaled, (0,)), [0.05], rtol=1e-6)


def test_cosine_and_constant():
    config = recipe(train__batch_size=128, optimizer__schedule="cosine", optimizer__warmup=200)
    expected = [0.005, 0.05, 0.025, 0.0]
    np.testing.assert_allclose(rates(config, (0, 200, 600, 1000)), expected, atol=1e-8)
    constant = recipe(train__batch_size=128, optimizer__schedule="constant")
    np.testing.assert_allclose(rates(constant, (0, 999)), [0.05, 0.05], rtol=1e-6)


FALLING = dict(train__batch_size=128, optimizer__warmup=200)  # a peak of 0.05


@pytest.mark.parametrize(
    "overrides, expected",
    [
        (
            dict(schedule="cosine", end_factor=0.1),
            optax.warmup_cosine_decay_schedule(0.005, 0.05, 200, 1000, 0.005),
        ),
        (
            dict(schedule="cosine", hold=300),
            optax.join_schedules(
                [optax.constant_schedule(0.05), optax.cosine_decay_schedule(0.05, 500)], [500]
            ),
        ),
        (
            dict(schedule="polynomial", end_factor=0.02, power=0.9),
            optax.polynomial_schedule(0.05, 0.001, 0.9, 800, 200),
        ),
        (
            dict(schedule="exponential", end_factor=0.01, hold=50),
            optax.exponential_decay(0.05, 750, 0.01, 250),
        ),
        (
            dict(schedule="step", boundaries=(0.4, 600), factors=(0.5, 0.01)),
            optax.piecewise_constant_schedule(0.05, {400: 0.5, 600: 0.01}),
        ),
        (
            dict(schedule="polynomial", from_start=True),
            optax.linear_schedule(0.05, 0.0, 1000),
        ),
    ],
    ids=lambda x: "_".join(map(str, x.values())) if isinstance(x, dict) else "optax",
)
def test_schedules_equal_optax(overrides, expected):
    config = recipe(**FALLING, **{f"optimizer__{key}": value for key, value in overrides.items()})
    steps = (200, 399, 400, 501, 600, 800, 999, 1000)
    at = rates(config, (0, *steps))
    np.testing.assert_allclose(at[0], 0.005, rtol=1e-6)
    np.testing.assert_allclose(at[1:], [expected(step) for step in steps], rtol=2e-5, atol=1e-8)


def test_a_warm_up_leads_to_what_a_rate_counted_from_the_start_has_come_to():
    settings = dict(optimizer__schedule="cosine", optimizer__from_start=True)
    config = recipe(**FALLING, **settings)
    top = 0.5 * 0.05 * (1 + np.cos(0.2 * np.pi))
    expected = [0.005, (0.005 + top) / 2, top, 0.025]
    np.testing.assert_allclose(rates(config, (0, 100, 200, 500)), expected, rtol=1e-6)


def test_steps_are_whole_numbers_beyond_the_precision_of_float32():
    config = recipe(train__steps=10**8, optimizer__boundaries=(2**24 + 1, 50_000_001))
    steps = (2**24, 2**24 + 1, 50_000_000, 50_000_001)
    peak = 0.05 * 32 / 128
    expected = [peak, peak / 10, peak / 10, peak / 100]
    np.testing.assert_allclose(rates(config, steps, num_examples=10**6), expected, rtol=1e-5)


MEGDET = dict(train__steps=0, optimizer__lr=0.02, optimizer__reference_batch=16)


@pytest.mark.parametrize("batch, normal, long", [(16, 81_125, 132_750), (256, 5_071, 8_297)])
def test_megdet_policies(batch, normal, long):
    """118,000 images at 0.02 per 16: steps of both policies, and the rates between their drops."""
    config = recipe(train__batch_size=batch, optimizer__schedule="normal", **MEGDET)
    r = schedule.resolve(config, 118_000, devices=1)
    assert r.steps == normal
    marks = [step / r.steps_per_epoch for step in r.boundaries]
    assert marks == pytest.approx([8, 10], abs=3e-3)
    peak = 0.02 * batch / 16
    at = rates(config, [0, r.boundaries[0], r.boundaries[1]], num_examples=118_000)
    np.testing.assert_allclose(at, [peak, 0.1 * peak, 0.01 * peak], rtol=1e-6)

    config.optimizer.schedule = "long"
    r = schedule.resolve(config, 118_000, devices=1)
    assert r.steps == pytest.approx(long, abs=1)
    assert [step / r.steps_per_epoch for step in r.boundaries] == pytest.approx(
        [11, 14, 17], abs=3e-3
    )
    at = rates(config, [b + d for b in r.boundaries for d in (-1, 0)], num_examples=118_000)
    np.testing.assert_allclose(np.array(at) / peak, [1, 0.1, 0.1, 0.01, 0.01, 0.005], rtol=1e-6)


def test_a_policy_stretches():
    config = recipe(**MEGDET | dict(train__epochs=44.0, optimizer__schedule="normal"))
    r = schedule.resolve(config, 320, devices=1)
    assert (r.steps, r.boundaries, r.factors) == (440, (320, 400), (0.1, 0.1))
    config = recipe(**MEGDET | dict(train__steps=180, optimizer__schedule="long"))
    assert schedule.resolve(config, 320, devices=1).boundaries == (110, 140, 170)


def test_megdet_warm_up():
    """From the small batch's rate, for at least an epoch; a batch below the reference stays level."""
    begin = dict(optimizer__warmup=500, optimizer__warmup_epochs=1.0, optimizer__warmup_lr=0.02)
    config = recipe(train__batch_size=128, optimizer__schedule="long", **MEGDET | begin)
    r = schedule.resolve(config, 118_000, devices=1)
    assert (r.warmup, r.warmup_lr, r.peak_lr) == (922, 0.02, 0.16)
    at = rates(config, (0, 461, 921, 922), num_examples=118_000)
    slope = (0.16 - 0.02) / 922
    expected = [0.02, 0.02 + 461 * slope, 0.02 + 921 * slope, 0.16]
    np.testing.assert_allclose(at, expected, rtol=1e-5)
    text = schedule.describe(r)
    assert "peak 0.16 = 0.02 · 128/16, warm-up of 922 steps from 0.02, drops at 10141" in text
    assert "0.016 from epoch 11.0, 0.0016 from epoch 14.0, 0.0008 from epoch 17.0" in text

    config.train.batch_size = 8
    at = rates(config, (0, 7000), num_examples=118_000)
    np.testing.assert_allclose(at, [0.01, 0.01], rtol=1e-6)
    config.train.batch_size = 1024
    assert schedule.resolve(config, 118_000, devices=1).warmup == 500


def test_epochs_become_steps():
    config = recipe(train__steps=0, train__epochs=2.5)
    resolved = schedule.resolve(config, 100, devices=1)
    assert resolved.steps == 8  # 250 images of 32, rounded up
    assert resolved.steps_per_epoch == 100 / 32
    assert resolved.save_every == 1


def test_layout_over_devices():
    config = recipe(train__batch_size=128, train__accumulation=2, parallel__bn_group_size=16)
    r = schedule.resolve(config, 1000, devices=8)
    assert (r.batch_per_device, r.micro_batch, r.bn_group) == (16, 8, 16)
    assert (r.groups, r.members) == (4, 2)
    text = schedule.describe(r)
    assert "16 on each of 8 device(s) in 2 micro-batches of 8" in text
    assert "16 images share statistics" in text and "drops at 450, 750, 950" in text


@pytest.mark.parametrize(
    "overrides, message",
    [
        (dict(train__batch_size=30), r"batch_size=30 does not divide by 4 .*multiple of 4"),
        (dict(train__accumulation=3), r"accumulation=3.*multiple of 12"),
        (dict(parallel__bn_group_size=3), r"bn_group_size=3 does not fit 4 .* 8 images"),
        (dict(parallel__bn_group_size=24), r"bn_group_size=24 .*; 1, 2, 4, 8, 16, 32 do"),
        (dict(optimizer__warmup=1000), r"warmup=1000 is not shorter than .* 1000 steps"),
        (dict(optimizer__warmup_epochs=32.0), r"warmup_epochs=32.0 \(1000 steps\) is not shorter"),
        (dict(optimizer__warmup_lr=0.02), r"warmup_lr=0.02 begins a warm-up, but there is none"),
        (
            dict(optimizer__schedule="normal", optimizer__warmup=800),
            r"epochs of 'normal' come to steps \(727, 909\).*warm-up \(800\).*; train longer",
        ),
        (dict(optimizer__warmup=500), r"boundaries.*end of the warm-up \(500\)"),
        (dict(optimizer__boundaries=(0.8, 0.5)), r"boundaries=\(0.8, 0.5\) come to .*must rise"),
        (dict(optimizer__boundaries=(5000,)), r"boundaries.*end of the run \(1000\)"),
        (dict(optimizer__boundaries=(0.0, 0.5)), r"boundaries"),
        (dict(optimizer__boundaries=("0.5;0.8",)), r"boundaries=\(.0.5;0.8.,\) must be numbers"),
        (dict(optimizer__factors=(0.5,)), r"factors=\(0.5,\) must be a number above 0 for each"),
        (dict(optimizer__factors=(0.5, 0.0, 0.1)), r"factors=.*must be a number above 0"),
        (dict(optimizer__end_factor=0.1), r"end_factor=0.1 is for .*'cosine'.*leave it at 0.0"),
        (dict(optimizer__power=2.0), r"power=2.0 is for optimizer.schedule='polynomial'"),
        (dict(optimizer__schedule="exponential"), r"end_factor=0: .* such as 0.01"),
        (
            dict(optimizer__schedule="cosine", optimizer__hold=1000),
            r"hold=1000 after 0 steps of warm-up leaves none of 1000",
        ),
        (
            dict(optimizer__schedule="cosine", optimizer__hold=9, optimizer__from_start=True),
            r"hold=9 .* set one of them",
        ),
        (dict(train__steps=0), r"train.steps=0 and train.epochs=0.0: set one"),
        (dict(train__epochs=3.0), r"set one of them"),
    ],
)
def test_refusals_name_key_value_and_remedy(overrides, message):
    with pytest.raises(ConfigError, match=message):
        schedule.resolve(recipe(**overrides), 1000, devices=4)


def test_no_images():
    with pytest.raises(ConfigError, match="no images"):
        schedule.resolve(recipe(), 0, devices=1)
