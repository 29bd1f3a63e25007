"""The gradient's variance: estimated without bias, and one over the batch where it must be."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.analysis import gradients
from jdet.analysis.gradient_noise import Noise, fit, measure
from tests.train import fake

WEIGHTS = jnp.array([1.0, -2.0, 0.5])
SPREAD = np.array([1.0, 2.0, 0.5])


def linear(weights, batch):
    """Gradient of the mean over images of ½ (w · x - y)²; its variance is known."""
    x, y = batch
    return jax.grad(lambda w: jnp.mean(0.5 * (x @ w - y) ** 2))(weights)


def images(rng, count):
    x = rng.normal(size=(count, 3)) * SPREAD
    return jnp.asarray(x), jnp.asarray(x @ np.ones(3) + rng.normal(size=count))


def variance_of_one(error):
    """Trace of the covariance of (e · x) x - ε x for Gaussian x of deviations s and unit noise ε.

    E |g|² - |E g|² = Σ_i s_i² (|s e|² + 2 s_i² e_i²) + Σ s² - Σ s⁴ e², by Isserlis' theorem.
    """
    s, total = SPREAD**2, np.sum(SPREAD**2 * error**2)
    return np.sum(s * (total + 2 * s * error**2)) + np.sum(s) - np.sum(s**2 * error**2)


@functools.cache
def measured(sizes=(1, 4, 16), draws=4096):
    rng = np.random.default_rng(0)
    return [measure(linear, WEIGHTS, (images(rng, n) for _ in range(draws)), n) for n in sizes]


def test_linear_model_with_known_variance():
    error = np.asarray(WEIGHTS) - 1
    mean = SPREAD**2 * error
    for point in measured():
        assert abs(point.variance - variance_of_one(error) / point.batch) < 4 * point.error
        assert point.error < 0.1 * point.variance
        scale = np.sum(mean**2)
        assert abs(point.signal - scale) < 5 * np.sqrt(point.variance * scale * 4 / point.draws)
    law = fit(measured())
    assert law.exponent == pytest.approx(1, abs=4 * law.exponent_error)
    assert abs(law.rest) < 4 * law.rest_error
    assert law.per_image == pytest.approx(variance_of_one(error), rel=0.1)
    assert law.noise_scale == pytest.approx(variance_of_one(error) / np.sum(mean**2), rel=0.15)


def test_large_steps_vary_as_small_ones_do():
    """MegDet's equation: k steps of N at rate r and one of k · N at k · r have one variance."""
    rate, k = 0.1, 4
    one, four, sixteen = (point.variance for point in measured())
    assert k * rate**2 * one == pytest.approx((k * rate) ** 2 * four, rel=0.15)
    assert k * rate**2 * four == pytest.approx((k * rate) ** 2 * sixteen, rel=0.15)


def test_the_estimate_is_unbiased_in_few_draws_and_keeps_small_variances():
    """Two teams of four: the sample variance over 3, not 4; a mean of 1000 costs no digits."""
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(300, 8, 5)).astype(np.float32)
    shift = lambda fixed, x: fixed + 1e-2 * x  # noqa: E731
    found = [measure(shift, jnp.full(5, 1e3), map(jnp.asarray, some), 1) for some in draws]
    assert np.mean([point.variance for point in found]) == pytest.approx(5e-4, rel=0.05)
    teams = draws[0].astype(np.float64).reshape(2, 4, 5).var(axis=1, ddof=1).sum(1) * 1e-4
    assert found[0].variance == pytest.approx(teams.mean(), rel=2e-2)
    assert found[0].error == pytest.approx(teams.std(ddof=1) / np.sqrt(2), rel=0.1)
    assert found[0].signal == pytest.approx(5e6, rel=1e-4) and found[0].draws == 8
    for count in (4, 10):
        with pytest.raises(ValueError, match="multiple of 4, 8 at least"):
            measure(shift, jnp.zeros(5), map(jnp.asarray, np.zeros((count, 5))), 1)


def test_fit_tells_a_rest_and_an_exponent():
    """Variance that no batch averages out, and one that falls as the root of the batch."""
    law = fit([Noise(n, 32, 0.5 + 8 / n, 0.01, 4.0, 1.0) for n in (1, 2, 4, 8)])
    assert (law.rest, law.noise_scale) == (pytest.approx(0.5), pytest.approx(law.per_image / 4))
    law = fit([Noise(n, 32, 3 / n**0.5, 0.01, -1.0, 1.0) for n in (1, 4, 16)])
    assert law.exponent == pytest.approx(0.5) and np.isnan(law.noise_scale)


def batches(size, seed, count):
    return (jax.tree.map(jnp.asarray, fake.batch(k, size, seed)) for k in range(count))


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_detector_without_coupling_follows_the_law(norm):
    """Running statistics and a fixed normaliser leave a mean over images: p = 1 and no rest."""
    detector = fake.FakeDetector(norm)
    variables = fake.variables(detector, fake.batch(0))
    weights = gradients.average_weights(detector, variables, batches(8, 9, 8))
    assert weights["loc"] == pytest.approx(1.5, abs=0.4)  # 0 … 3 objects
    gradient = gradients.make_gradient(detector, norms="running", weights=weights)
    points = [measure(gradient, variables, batches(n, n, 64), n) for n in (1, 4, 16)]
    law = fit(points)
    assert law.exponent == pytest.approx(1, abs=4 * law.exponent_error + 0.02)
    assert law.exponent_error < 0.1
    if norm == "batch":  # statistics of one image or of sixteen: another gradient
        coupled = gradients.make_gradient(detector, norms="batch", weights=weights)
        one, many = (next(batches(n, n, 1)) for n in (1, 16))
        for batch in (one, many):
            ours, plain = coupled(variables, batch), gradient(variables, batch)
            assert not np.allclose(ours["head"]["kernel"], plain["head"]["kernel"], rtol=1e-2)


def test_the_training_loss_has_the_training_gradient():
    """Statistics of the batch and its own normaliser: the gradient of the loss as the step has it."""
    detector = fake.FakeDetector("batch")
    batch = jax.tree.map(jnp.asarray, fake.batch(0))
    variables = fake.variables(detector, batch)

    def loss(params):
        means, _ = detector.apply(
            {**variables, "params": params}, batch, method="losses", mutable=["batch_stats"]
        )
        return sum(m.total / jnp.maximum(m.weight, 1) for m in means.values())

    ours = gradients.make_gradient(detector, norms="batch", weights=None)(variables, batch)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        ours,
        jax.jit(jax.grad(loss))(variables["params"]),
    )


class Numbers:
    class_names = ("one",)

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return index


def test_draws_are_with_replacement_and_their_own_at_every_size():
    drawn = gradients.Drawn(Numbers(), 4000, [3, 8])
    counts = np.bincount([drawn[i] for i in range(len(drawn))])
    assert counts.sum() == 4000 and counts.min() > 700 and drawn.class_names == ("one",)
    again, other = (gradients.Drawn(Numbers(), 40, seed) for seed in ([3, 8], [3, 4]))
    assert [again[i] for i in range(40)] != [other[i] for i in range(40)]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--batches=4"], "two sizes or more"),
        (["--batches=0,4"], "two sizes or more, from 1"),
        (["--batches=4,8", "--draws=10"], "--draws=10; take a multiple of 4"),
        (["--batches=4,12"], "12 images do not divide into groups of 8"),
        (["--batches=4,12", "--group=-1"], "--group=-1"),
    ],
)
def test_refusals(options, message, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    config = fake.config(train__batch_size=8, parallel__devices=0)
    config.data.train = config.data.eval = gradients.build.group("source", "shapes", count=4)
    config.model = gradients.build.group(
        "detector",
        "ssd",
        backbone=gradients.build.group("backbone", "vgg16"),
        neck=gradients.build.group("neck", "ssd_extras"),
    )
    config.class_names = ("a",)
    (run / "config.json").write_text(config.to_json())
    (run / "run.json").write_text(json.dumps(dict(devices=1)))
    assert gradients.main([str(run), f"--out={tmp_path / 'out'}", *options]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_no_run_there(tmp_path, capsys):
    assert gradients.main([str(tmp_path), "--batches=1,2", f"--out={tmp_path}"]) == 2
    assert "holds no run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gradients.main([str(tmp_path), "--batches=1,two", f"--out={tmp_path}"])
