"""What looks at a run at chosen steps and says what it finds, without changing anything.

A check sees the state and what was logged so far. What it finds is an event in ``metrics.jsonl``, and its
lines are shown to people. A run that is resumed repeats no check whose event is on record, and decides on
nothing else than what was logged, so that it finds what it would have found without the interruption.
``jdet.analysis.learning`` has the one that every run makes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jdet.parallel import broadcast
from jdet.types import TrainState

Row = Mapping[str, float | None]
"""A training step as ``metrics.jsonl`` has it: "step", "loss", "lr", "grad_norm" and more; null is None."""


class Said(NamedTuple):
    """What a check found.

    Attributes:
        values: numbers and texts for the event.
        lines: for people; empty where there is nothing to say.
    """

    values: Mapping[str, Any] = {}
    lines: Sequence[str] = ()


class Check(Protocol):
    """Looks at a run at some of its steps.

    Attributes:
        name: of its events.
        steps: at which it looks, each 1 or more.
    """

    name: str
    steps: Sequence[int]

    def look(self, now: TrainState, step: int, rows: Sequence[Row]) -> Said:
        """Looks at a state, which stays as it is. Called on every process; that of process 0 counts.

        Args:
            now: the state.
            step: steps that it has taken.
            rows: the training steps logged so far, oldest first.
        """

    def diverged(self, step: int, rows: Sequence[Row]) -> Sequence[str]:
        """What to say of a run that ends because its loss or gradient was not finite."""


class Checks:
    """The checks of one run; the same on all processes."""

    def __init__(self, checks: Sequence[Check], log: Path, until: int | None):
        """Finds out which checks were made. All processes must call this, and ``look``, together.

        Args:
            checks: each with a name of its own.
            log: ``metrics.jsonl`` of the run.
            until: step that the run goes on from; None: it begins.
        """
        self._checks, self._log = checks, log
        self._made: set[tuple[str, int]] = set()
        if checks and until is not None:
            held = broadcast.from_main(lambda: read_rows(log, until, events=True))
            self._made = {(str(row["event"]), int(row["step"])) for row in held}

    def due(self, k: int) -> bool:
        """Whether there is anything to look at after k steps."""
        return any(self._open(check, k) for check in self._checks)

    def look(self, now: TrainState, k: int) -> list[tuple[str, Said]]:
        """Makes the checks that are due after k steps.

        Returns:
            Name and result of each, those of process 0 on all.
        """
        found = []
        for check in self._checks:
            if self._open(check, k):
                self._made.add((check.name, k))
                said = check.look(now, k, self._rows(k))
                found.append((check.name, broadcast.from_main(lambda said=said: said)))
        return found

    def diverged(self, k: int) -> list[str]:
        """What the checks say of a loss that was not finite at step k."""
        return [line for check in self._checks for line in check.diverged(k, self._rows(k))]

    def _open(self, check: Check, k: int) -> bool:
        return k in check.steps and (check.name, k) not in self._made

    def _rows(self, k: int) -> Sequence[Row]:
        return broadcast.from_main(lambda: read_rows(self._log, k))


def read_rows(log: Path, until: int, *, events: bool = False) -> list[dict[str, Any]]:
    """The training steps that ``metrics.jsonl`` holds up to a step, or its events; none without a file.

    Args:
        log: the file. What a killed run left unfinished is passed over.
        until: last step that counts.
        events: those instead of the training steps.
    """
    wanted, found = "event" if events else "lr", []
    for line in log.read_text(errors="replace").splitlines() if log.exists() else []:
        try:
            row = json.loads(line)
            if wanted in row and int(row["step"]) <= until and (events or "event" not in row):
                found.append(row)
        except (ValueError, KeyError, TypeError):
            continue
    return found
