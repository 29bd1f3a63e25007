"""Runs whose length is a time: how many steps fit, what else follows, and that a run goes on with them."""

import json
import logging

import jax
import numpy as np
import pytest

from jdet.config import get_defaults
from jdet.train import budget, loop, schedule
from jdet.types import ConfigError
from tests.train import fake

TIMED = dict(train__steps=40, train__budget__minutes=0.5, optimizer__warmup=4)


@pytest.fixture
def clock(monkeypatch):
    """Every step takes the seconds that are set, and compiling three."""

    def of(step):
        timing = budget.Timing(step, compiling=3.0, spent=20.0, timed=5)
        monkeypatch.setattr(budget, "_timed", lambda *_: timing)

    return of


def settle(stored=None, **values):
    config = fake.config(**{**TIMED, **values})
    budget.settle(config, stored, None, fake.stream, 20)
    return config


def test_the_steps_that_fit(clock, caplog):
    """30 s of 0.1 s; evaluations, warm-up and the steps at the peak follow."""
    caplog.set_level(logging.INFO)
    clock(0.1)
    c = settle(train__budget__evaluations=4, optimizer__hold=20)
    assert (c.train.steps, c.train.eval_every, c.optimizer.warmup) == (300, 75, 4)
    assert c.optimizer.hold == 150 and c.train.budget.step_seconds == 0.1
    assert "300 steps of 0.1 s" in caplog.text and "teach little" not in caplog.text
    assert not budget.open_ended(c)


def test_what_else_counts(clock, caplog):
    clock(0.5)
    c = settle(train__budget__counts="all", optimizer__warmup=30)
    assert (c.train.steps, c.optimizer.warmup) == (20, 2)  # 20 of the 30 s are gone
    assert "20 steps teach little; 300 would take 2.5 minutes" in caplog.text


def test_too_little_time_is_refused_and_what_is_asked_for_is_enough(clock):
    clock(6.0)
    with pytest.raises(ConfigError, match="time for 5 steps of 6 s on this machine.* give 1.1 min"):
        settle()
    assert settle(train__budget__minutes=1.1).train.steps >= budget.FEWEST
    with pytest.raises(ConfigError, match="give 1.4 minutes or more"):
        settle(train__budget__counts="all")
    assert settle(train__budget__counts="all", train__budget__minutes=1.4).train.steps == 10


@pytest.mark.parametrize(
    "other",
    [
        dict(train__steps=0, train__epochs=2.0),
        dict(train__steps=0),
        dict(train__length="fixed_samples"),
    ],
    ids=str,
)
def test_a_length_that_is_said_otherwise_is_refused(other, clock):
    clock(0.1)
    with pytest.raises(ConfigError, match="Set train.steps=1000 "):
        settle(**other)
    told = dict(train__steps=1000, train__epochs=0.0, train__length="fixed_iters")
    assert settle(**{**other, **told}).train.steps == 300


def test_a_run_goes_on_with_its_steps(clock):
    clock(0.1)
    first = settle()
    clock(0.2)
    again = settle(stored=first)
    assert (again.train.steps, again.train.budget.step_seconds) == (300, 0.1)
    assert json.loads(again.to_json()) == json.loads(first.to_json())
    # The workdir of a run without a budget refuses, and nothing is timed for that.
    assert budget.open_ended(settle(stored=fake.config(train__steps=9)))
    with pytest.raises(ConfigError, match="decides on train.steps"):
        settle(stored=first, train__steps=0, train__epochs=3.0)


def test_first_steps_are_timed():
    """The real clock, on the smallest detector: each shape is compiled once, and only then counts."""
    config = fake.config(**TIMED)
    found = budget._timed(config, fake.FakeDetector("batch"), fake.stream, 20)
    assert found.timed == budget.MOST
    assert 0 < found.step < found.compiling < found.spent


def test_rates_from_outside_are_those_of_the_schedule(tmp_path):
    """A run that was timed trains like one of as many steps that was not."""
    given = dict(train__steps=12, optimizer__warmup=4, optimizer__schedule="cosine")
    results = []
    for name, more in (("timed", dict(train__budget__minutes=1.0)), ("plain", {})):
        config = fake.config(**given, **more)
        results.append(
            loop.train(
                config,
                tmp_path / name,
                detector=fake.FakeDetector("batch"),
                train_stream=fake.stream,
                num_examples=20,
            ).state.params
        )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *results)
    rates = [
        [
            json.loads(line)["lr"]
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("timed", "plain")
    ]
    np.testing.assert_allclose(*rates, rtol=1e-5)
    assert len(set(rates[0])) > 3


def test_a_schedule_that_is_longer_than_the_steps_that_stand_there():
    """Until they are known the number means nothing; a rate that never changes is one number."""
    config = fake.config(**{**TIMED, "optimizer__warmup": 500})
    assert budget._timed(config, fake.FakeDetector("none"), fake.stream, 20).timed >= budget.LEAST
    config = fake.config(**{**TIMED, "optimizer__warmup": 0, "optimizer__schedule": "constant"})
    resolved = schedule.resolve(config, 20)
    _, factors = budget.outside(
        config, resolved, schedule.learning_rate(config.optimizer, resolved)
    )
    assert factors is not None and factors.tolist() == [1.0] * 40
    budget._write(held := fake.config(train__steps=1000, optimizer__hold=940), 100, 0.1)
    assert held.optimizer.hold == 94
    budget._write(
        held := fake.config(
            train__steps=1000,
            optimizer__hold=940,
            optimizer__warmup=50,
            optimizer__schedule="cosine",
        ),
        100,
        0.1,
    )
    assert (held.optimizer.warmup, held.optimizer.hold) == (10, 89)
    schedule.resolve(held, 20)


def test_without_a_budget_the_rate_is_the_programs_own():
    config = fake.config(train__steps=12)
    resolved = schedule.resolve(config, 20)
    rate = schedule.learning_rate(config.optimizer, resolved)
    assert budget.outside(config, resolved, rate) == (rate, None)
    assert get_defaults().train.budget.minutes == 0
