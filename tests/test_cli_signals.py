"""Signals that end a command: in one line, with its exit code, whenever they come."""

import os
import signal
import sys

import pytest
from absl import app

from jdet import cli, main

SIGNALS = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]


@pytest.fixture
def usual():
    """Handlers as a program finds them."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_command_in_a_line(usual, capsys, number):
    def work():
        signal.raise_signal(number)
        raise AssertionError("not reached")

    assert cli.run(work) == 128 + number
    assert capsys.readouterr().err == f"error: stopped by {number.name}\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_an_ignored_signal_stays_ignored(usual):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert cli.run(lambda: signal.raise_signal(signal.SIGHUP)) == 0


@pytest.mark.parametrize("later, ends", [(0.1, False), (2.0, True)])
def test_a_second_interrupt_ends_the_clean_up_but_a_double_press_does_not(
    usual, monkeypatch, later, ends
):
    now, ended = [100.0], []
    monkeypatch.setattr(cli.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "_exit", ended.append)

    def work():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            now[0] += later
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)

    assert cli.run(work) == 130
    assert ended == [130] * ends


@pytest.mark.parametrize(
    "arguments, number, code",
    [
        (["--stopped_exit_code=75"], signal.SIGTERM, 75),
        (["--stopped_exit_code", "75"], signal.SIGHUP, 75),
        ([], signal.SIGTERM, 0),
        (["--stopped_exit_code=75"], signal.SIGINT, 130),
        (["--mode=evaluate", "--stopped_exit_code=75"], signal.SIGTERM, 143),
    ],
)
def test_training_that_is_stopped_before_its_first_step(
    usual, monkeypatch, capsys, arguments, number, code
):
    """Also while the command line is still read, as an experiment may look at its data then."""
    monkeypatch.setattr(sys, "argv", ["main", *arguments])
    monkeypatch.setattr(app, "run", lambda *_, **__: signal.raise_signal(number))
    with pytest.raises(SystemExit) as ended:
        cli.start(main.main, main.sigterm_code)
    assert ended.value.code == code
    assert "stopped by" in capsys.readouterr().err


def test_training_says_how_to_go_on(usual, monkeypatch, capsys):
    from jdet import run

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train", stopped)
    monkeypatch.setattr(
        main,
        "FLAGS",
        type("Flags", (), {n: "" for n in ("mode", "config", "workdir", "overwrite")}),
    )
    assert cli.run(main._work) == 130
    assert "the same command goes on from the last checkpoint" in capsys.readouterr().err


def test_a_run_stopped_before_anything_was_logged_has_no_curves(tmp_path):
    from jdet.analysis import curves

    (tmp_path / "metrics.jsonl").touch()
    curves.draw_log(tmp_path)
    assert not (tmp_path / "curves.png").exists()
