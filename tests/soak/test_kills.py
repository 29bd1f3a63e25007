"""What is counted as a disturbance happened: to a run that still went on, or noticed it."""

import random

import pytest

from tests.soak import kills

KINDS = ("kill", "term", "stop", "file_limit", "torn", "process")


@pytest.fixture
def disturb(tmp_path, monkeypatch):
    """Disturbs a program that is made up: whether it runs at the signal, and its exit code after that."""

    def call(kind, runs, code):
        class Program:
            def __init__(self, *_):
                self.code = code

            def ended(self):
                return True

            def signal(self, number):
                return runs

        monkeypatch.setattr(kills, "Fork", Program)
        monkeypatch.setattr(kills, "Pair", Program)
        monkeypatch.setattr(kills.time, "sleep", lambda seconds: None)
        told = []
        return kills.disturb(kind, random.Random(0), tmp_path, tmp_path / "log", told), told

    return call


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_had_ended_was_not_disturbed(disturb, kind):
    happened, told = disturb(kind, False, 0)
    assert happened is None
    assert kind == "file_limit" or told[0].endswith("exit code 0, ended before")


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_hit_was_disturbed(disturb, kind):
    assert disturb(kind, True, -9)[0] == {"torn": "kill"}.get(kind, kind)


def test_a_run_that_ends_well_after_a_stop_was_disturbed(disturb):
    assert disturb("stop", True, 0)[0] == "stop"
    assert disturb("term", True, 0)[0] == "term"
    assert disturb("kill", True, 0)[0] is None  # the signal came as it ended


def test_a_torn_checkpoint_counts_whether_or_not_the_run_had_ended(disturb, tmp_path):
    for step in ("2", "4"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
        (tmp_path / "checkpoints" / step / "array").write_bytes(bytes(9))
    happened, told = disturb("torn", False, 0)
    assert happened == "torn" and "4/array" in told[1]
