"""What looks at a run on the way: when, what it is given, and that it is not repeated."""

import math

import pytest

from jdet.train.checks import Said, read_rows
from tests.train import fake
from tests.train.test_loop import assert_identical, lines, timeless, train

SETTINGS = dict(train__steps=12, train__save_every=4, train__log_every=2)


class Look:
    name, steps = "look", (3, 4, 9)

    def __init__(self):
        self.calls = []

    def look(self, now, step, rows):
        self.calls.append((int(now.step), step, [row["step"] for row in rows]))
        return Said(
            {"seen": len(rows), "none": math.nan}, [f"seen {len(rows)}"] if rows[3:] else ()
        )

    def diverged(self, step, rows):
        return [f"lower the rate after {len(rows)} rows"]


def test_it_looks_at_its_steps_and_tells(tmp_path, capsys):
    look = Look()
    whole = train(tmp_path / "whole", checks=[look], **SETTINGS)
    assert look.calls == [(3, 3, [1, 2]), (4, 4, [1, 2, 4]), (9, 9, [1, 2, 4, 6, 8])]
    events = [line for line in lines(tmp_path / "whole") if "event" in line]
    assert events[0] == {"step": 3, "event": "look", "look/seen": 2, "look/none": None}
    assert "step 9: seen 5" in capsys.readouterr().out
    assert_identical(whole.state, train(tmp_path / "without", **SETTINGS).state)

    for stop in (4, 6):  # where it would have looked, and between
        again = Look()
        train(tmp_path / f"{stop}", checks=[again], until=stop, **SETTINGS)
        result = train(tmp_path / f"{stop}", checks=[again], **SETTINGS)
        assert [step for _, step, _ in again.calls] == [3, 4, 9]
        assert timeless(tmp_path / f"{stop}") == timeless(tmp_path / "whole")
        assert_identical(whole.state, result.state)


def test_it_has_a_word_on_a_loss_that_is_not_finite(tmp_path, capsys):
    result = train(
        tmp_path, detector=fake.FakeDetector("batch", bad_index=13), checks=[Look()], **SETTINGS
    )
    assert result.status == "diverged"
    assert "lower the rate after" in capsys.readouterr().out


@pytest.mark.parametrize("events, expected", [(False, [1, 2]), (True, [2])])
def test_reading_rows_passes_over_what_is_none(tmp_path, events, expected):
    log = tmp_path / "metrics.jsonl"
    assert read_rows(log, 9) == []
    log.write_text(
        '{"step": 1, "lr": 1}\n{"step": 2, "lr": 1}\n{"step": 2, "event": "x"}\n{"step": 2, "ap": 1}\n'
        '{"step": 3, "lr": 1}\n{"lr": 1}\n[]\n7\n{"step": 2, "l'
    )
    assert [row["step"] for row in read_rows(log, 2, events=events)] == expected
