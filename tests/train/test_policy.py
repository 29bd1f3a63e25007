"""Learning rate and end of a run decided from its evaluations, and saturation as the first such policy."""

import json
import math
import signal

import jax
import numpy as np
import pytest

from jdet.train import early_stop, loop, saturation
from jdet.train.checkpoints.select import steps_in
from jdet.train.policy import Decision, Decisions, Evaluation, read_evaluations
from jdet.types import ConfigError, Evaluated
from tests import harness
from tests.train import fake
from tests.train.test_loop import assert_identical, lines, timeless, train

VALUES = (0.1, 0.3, 0.305, 0.29, 0.31, 0.4, 0.39, 0.4)
RULE = dict(patience=2, delta=0.01, reductions=1, factor=0.1)


def test_saturation_by_hand():
    """The example of its docstring."""
    decided = [saturation.decide(VALUES[:n], **RULE) for n in range(len(VALUES) + 1)]
    assert [each.lr_scale for each in decided] == [1, 1, 1, 1, *[pytest.approx(0.1)] * 5]
    assert [each.stop for each in decided] == [*[False] * 8, True]
    assert "0.4 by more than 0.01 for 2 evaluations" in decided[-1].reason
    assert decided[0] == Decision()


@pytest.mark.parametrize(
    "values, rule, expected",
    [
        ((0.1, 0.1, 0.1), dict(patience=2, reductions=0), (1.0, True)),
        ((0.1, math.nan, 0.1), dict(patience=2, reductions=0), (1.0, True)),
        ((math.nan,), dict(patience=1, reductions=1), (0.1, False)),
        ((0.1, 0.2, 0.3), dict(patience=1, reductions=0), (1.0, False)),
        ((0.1, 0.15, 0.2), dict(patience=1, reductions=3, delta=0.06), (0.1, False)),
        ((0.5,) * 6, dict(patience=1, reductions=3, factor=0.5), (0.125, True)),
        ((0.5,) * 6, dict(patience=2, minimum=7), (1.0, False)),
        ((0.5,) * 7, dict(patience=2, minimum=7), (0.1, False)),
        (
            (0.5,) * 9,
            dict(patience=2, minimum=7),
            (0.1, True),
        ),  # patience alone counts from there on
        ((0.1, 0.2, 0.3, 0.3), dict(patience=2, minimum=3), (1.0, False)),
    ],
)
def test_saturation_at_the_edges(values, rule, expected):
    found = saturation.decide(values, **{**RULE, "delta": 0.0, **rule})
    assert (found.lr_scale, found.stop) == (pytest.approx(expected[0]), expected[1])


def test_saturation_from_config():
    assert saturation.from_config(fake.config()) is None
    on = dict(train__saturation__patience=2, train__eval_every=2)
    evaluations = [Evaluation(k, {"a": v, "b": 1.0}) for k, v in enumerate(VALUES)]
    first = saturation.from_config(fake.config(**on, train__saturation__delta=0.01))
    later = saturation.from_config(fake.config(**on, train__saturation__minimum=9))
    assert later(evaluations) == Decision()
    assert first(evaluations) == saturation.decide(VALUES, **RULE)
    other = saturation.from_config(fake.config(**on, train__best_metric="b"))
    assert other(evaluations).stop and not other(evaluations[:4]).stop
    with pytest.raises(ConfigError, match="patience=2 counts evaluations, but train.eval_every=0"):
        saturation.from_config(fake.config(train__saturation__patience=2))
    with pytest.raises(ConfigError, match="factor=0.0 must be above 0"):
        saturation.from_config(fake.config(**on, train__saturation__factor=0.0))


def test_early_stop_is_saturation_without_reductions():
    on = dict(train__early_stop__patience=2, train__eval_every=2)
    evaluations = [Evaluation(k, {"a": v, "b": -v}) for k, v in enumerate(VALUES)]
    stop = early_stop.policy_of(fake.config(**on, train__early_stop__min_delta=0.01))
    decided = [stop(evaluations[:n]) for n in range(len(VALUES) + 1)]
    assert [each.stop for each in decided] == [False] * 4 + [True] * 5  # after 0.29
    assert {each.lr_scale for each in decided} == {1.0}
    assert "not exceeded 0.3 by more than 0.01 for 2 evaluations" in decided[4].reason
    lowest = fake.config(**on, train__best_metric="b", train__best_mode="min")
    lowest.train.early_stop.min_delta = 0.01
    falling = early_stop.policy_of(lowest)
    assert [falling(evaluations[:n]).stop for n in range(9)] == [each.stop for each in decided]
    assert "not fallen below -0.3 by more than 0.01" in falling(evaluations[:4]).reason
    lowest.train.early_stop.minimum = 6
    assert not early_stop.policy_of(lowest)(evaluations[:5]).stop


def test_one_rule_decides():
    assert early_stop.policy_of(fake.config()) is None
    both = dict(train__early_stop__patience=3, train__saturation__patience=2, train__eval_every=2)
    with pytest.raises(ConfigError, match="saturation.patience=2 and train.early_stop.patience=3"):
        early_stop.policy_of(fake.config(**both))
    with pytest.raises(ConfigError, match="early_stop.patience=3 counts evaluations"):
        early_stop.policy_of(fake.config(train__early_stop__patience=3))
    with pytest.raises(ConfigError, match="early_stop.minimum=3 is for"):
        early_stop.policy_of(fake.config(train__early_stop__minimum=3))


def test_a_run_stops_early_with_its_lowest_metric_kept(tmp_path):
    """Lowest at step 4; over at step 8."""

    def worse(state, k):
        return Evaluated({"error": abs(k - 4) / 10})

    settings = dict(train__steps=20, train__eval_every=2, train__save_every=2, train__keep=1)
    settings |= dict(train__early_stop__patience=2, train__best_mode="min")
    result = train(tmp_path, evaluate=worse, **settings)
    assert (result.status, result.step) == ("completed", 8)
    assert steps_in(tmp_path / "checkpoints") == [4, 8]


SATURATING = dict(
    train__steps=100,
    train__eval_every=2,
    train__save_every=2,
    train__log_every=1,
    train__saturation__patience=2,
    train__saturation__reductions=2,
)


def shown(state, k):
    """A metric that improves up to step 4."""
    return Evaluated({"ap": min(k, 4) / 10, "at": k})


def events(workdir):
    found = [line for line in lines(workdir) if line.get("event") == "decision"]
    return [(line["step"], pytest.approx(line["lr_scale"]), line["stop"]) for line in found]


def test_a_run_ends_when_it_saturates(tmp_path, capsys):
    """Reduced at 8 and 12, over at 16."""
    result = train(tmp_path, evaluate=shown, **SATURATING)
    assert (result.status, result.step, result.exit_code) == ("completed", 16, 0)
    assert events(tmp_path) == [(8, 0.1, False), (12, 0.01, False), (16, 0.01, True)]
    rates = {line["step"]: line["lr"] for line in lines(tmp_path) if "lr" in line}
    assert rates[8] == pytest.approx(0.02) and rates[9] == pytest.approx(0.002)
    assert rates[12] == pytest.approx(0.002) and rates[13] == pytest.approx(0.0002)
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["status"], record["step"], record["steps"]) == ("completed", 16, 100)
    assert record["decision"]["stop"] and "for 2 evaluations" in record["decision"]["reason"]
    said = capsys.readouterr().out
    assert "step 8: lr × 0.1" in said and "completed at step 16 of 100" in said
    assert "the main metric has not exceeded 0.4" in said

    again = train(tmp_path, evaluate=shown, **SATURATING)
    assert "this run is complete: 16 steps" in capsys.readouterr().out
    assert_identical(again.state, result.state)


def test_the_last_step_of_a_run_that_saturates_is_logged(tmp_path):
    """Step 16, between two that log_every asks for; those that it asks for are logged once."""
    settings = SATURATING | dict(train__log_every=5)
    train(tmp_path / "between", evaluate=shown, **settings)
    logged = [line for line in lines(tmp_path / "between") if "loss" in line]
    assert [line["step"] for line in logged] == [1, 5, 10, 15, 16]
    train(tmp_path / "at", evaluate=shown, **settings | dict(train__log_every=8))
    logged = [line["step"] for line in lines(tmp_path / "at") if "loss" in line]
    assert logged == [1, 8, 16]


@pytest.mark.parametrize("stop_at", [6, harness.thorough(8), harness.thorough(9), 15])
def test_a_stopped_run_decides_again_what_it_had(tmp_path, stop_at):
    """Whether the signal comes before or after the rate was reduced, or in between evaluations."""

    def stream(start):
        for k, batch in enumerate(fake.stream(start), start):
            if k == stop_at:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    whole = train(tmp_path / "whole", evaluate=shown, **SATURATING)
    cut = train(tmp_path / "cut", evaluate=shown, stream=stream, **SATURATING)
    assert cut.status == "interrupted"
    resumed = train(tmp_path / "cut", evaluate=shown, **SATURATING)
    assert resumed.step == 16
    assert_identical(resumed.state, whole.state)
    assert timeless(tmp_path / "cut") == timeless(tmp_path / "whole")


def test_policy_sees_what_is_recorded_and_scale_one_changes_nothing(tmp_path):
    seen = []

    def policy(evaluations):
        seen.append(evaluations)
        return Decision()

    def evaluate(state, k):
        return Evaluated({"ap": math.inf if k == 2 else k / 3})

    settings = dict(train__eval_every=2, evaluate=evaluate)
    with_it = train(tmp_path / "with", policy=policy, **settings)
    without = train(tmp_path / "without", **settings)
    assert_identical(with_it.state, without.state)
    assert [[each.step for each in evaluations] for evaluations in seen] == [[2], [2, 4], [2, 4, 6]]
    assert math.isnan(seen[-1][0].metrics["ap"])  # as it is read from the file
    assert seen[-1][1:] == read_evaluations(tmp_path / "with" / "metrics.jsonl", 9)[1:]
    assert [each.step for each in read_evaluations(tmp_path / "with" / "metrics.jsonl", 5)] == [
        2,
        4,
    ]
    assert read_evaluations(tmp_path / "nothing", 5) == []
    assert "decision" not in json.loads((tmp_path / "without" / "run.json").read_text())


def test_lines_that_hold_no_numbers_are_passed_over(tmp_path):
    lines = ['{"step": Infinity, "a": 1}', '{"step": 2, "a": "x"}', '{"step": 3, "a": [1]}']
    lines += [f'{{"step": 4, "a": 1{"0" * 400}}}', '{"step": 5, "a": null, "b": 2}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    (found,) = read_evaluations(tmp_path / "metrics.jsonl", 9)
    assert found.step == 5 and math.isnan(found.metrics["a"]) and found.metrics["b"] == 2


def test_nonsense_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="decides from evaluations, but there are none"):
        train(tmp_path, policy=lambda _: Decision())
    wrong = Decisions(lambda _: Decision(lr_scale=math.nan), tmp_path / "none", None)
    with pytest.raises(ValueError, match="lr_scale must be 0 or more"):
        wrong.add(1, {"ap": 1.0})


def test_no_rate_compiles_a_second_step(tmp_path, monkeypatch):
    made, make = [], loop.make_train_step
    monkeypatch.setattr(loop, "make_train_step", lambda *args: made.append(make(*args)) or made[-1])
    train(tmp_path, evaluate=shown, **SATURATING)
    assert made[0]._cache_size() == 1


def test_rate_zero_leaves_the_weights(tmp_path):
    """From the first evaluation on, without momentum."""
    held = []

    def evaluate(state, k):
        held.append(jax.device_get(state.params))
        return Evaluated({"ap": 0.0})

    train(
        tmp_path,
        evaluate=evaluate,
        policy=lambda _: Decision(lr_scale=0.0),
        optimizer__momentum=0.0,
        train__eval_every=2,
    )
    jax.tree.map(np.testing.assert_array_equal, held[0], held[2])
