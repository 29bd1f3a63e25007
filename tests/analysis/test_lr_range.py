"""The range test: rates, smoothing, suggestion and divergence; one sweep of the fake detector."""

import json
import math
from unittest.mock import MagicMock

import numpy as np
import pytest

from jdet.analysis import lr_range
from jdet.analysis.lr_range import Sweep, smooth, suggest, sweep
from jdet.parallel import mesh as mesh_lib
from jdet.types import ConfigError
from tests.train import fake


def seen(losses, diverged=True):
    rates = np.geomspace(1e-5, 1, len(losses))
    return Sweep(rates, np.array(losses), smooth(losses), diverged)


def test_smoothing_begins_with_the_first_loss_and_forgets_it():
    np.testing.assert_allclose(smooth([3.0] * 9), 3.0)
    assert smooth([5.0, 1.0])[1] == pytest.approx((0.09 * 5 + 0.1) / 0.19)


def test_the_suggestion_is_where_the_loss_falls_fastest():
    x = np.linspace(-5, 0, 200)
    losses = 2 - np.tanh(4 * (x + 2)) + np.where(x > -1, 8 * (x + 1) ** 2, 0)
    found = seen(losses)
    assert 1e-2 < suggest(found) < 3e-2  # the steepest place, 1e-2, and the lag of the average
    assert suggest(seen(1 + (x + 5))) is None  # rises from the start
    assert suggest(seen([math.nan] * 3)) is None
    text = lr_range.describe(fake.config(optimizer__reference_batch=16), found, 0.02)
    assert "diverges at 1" in text and "--config.optimizer.lr=0.04" in text
    assert "falls nowhere" in lr_range.describe(fake.config(), found, None)


def test_a_sweep_raises_the_rate_until_the_loss_diverges(tmp_path):
    config = fake.config()
    mesh = mesh_lib.make_mesh(config)
    closed = []

    def batches():
        try:
            yield from fake.stream(0)
        finally:
            closed.append(True)

    detector = fake.FakeDetector()
    found = sweep(config, detector, batches, mesh, low=1e-4, high=1e6, steps=60)
    ratio = found.rates[1:] / found.rates[:-1]
    np.testing.assert_allclose(ratio, 1e10 ** (1 / 59), rtol=1e-4)
    assert found.diverged and 10 < len(found.rates) < 60 and closed
    assert found.rates[0] == pytest.approx(1e-4) and np.isfinite(found.losses[:-1]).all()
    assert suggest(found) is not None
    figure = lr_range.draw(found, suggest(found))
    figure.savefig(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 5000


@pytest.mark.parametrize(
    "settings, remedy",
    [
        (dict(), "the cause is in the detector's losses or the values of the images"),
        (
            dict(precision="bfloat16", init_from__path="run"),
            "try it with --config.precision=float32 and --config.init_from.path=''",
        ),
    ],
)
def test_a_first_loss_that_is_not_finite_is_told(monkeypatch, settings, remedy):
    config = fake.config(**settings)
    for module in ("state", "optim"):
        monkeypatch.setattr(lr_range, module, MagicMock())
    monkeypatch.setattr(lr_range.state, "abstract_variables", lambda *_: ({}, {}))
    values = dict(loss=math.nan, lr=1e-4, finite=False)
    monkeypatch.setattr(lr_range, "make_train_step", lambda *_: lambda now, batch: (now, values))
    arguments = config, None, lambda: fake.stream(0), mesh_lib.make_mesh(config)
    with pytest.raises(ConfigError, match=f"at the first step, .* no --low helps; {remedy}"):
        sweep(*arguments, low=1e-4, high=1.0, steps=20)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(low=1.0, high=0.1), "two rates with 0 < low < high"),
        (dict(steps=3), "--steps=3; it must be in 10"),
    ],
)
def test_settings_are_checked(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        lr_range.analyse(fake.config(), tmp_path, **options)
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(ConfigError, match="is the folder of a run"):
        lr_range.analyse(fake.config(), tmp_path)
