"""What decides about the future of a run from its metrics: a pure function of the recorded evaluations.

    def policy(evaluations):  # of all evaluations so far, oldest first
        return Decision(lr_scale=0.1, stop=False, reason="…")

A run asks its policy after every evaluation. The decision holds until the next one: the factor of the
learning rate for the steps that follow, and whether there are any. Process 0 decides for all. What was
evaluated is in ``metrics.jsonl``; a run that is resumed reads its evaluations up to the checkpoint's step
from there and decides on them again, so it goes on as if it had not stopped. A policy must therefore depend
on nothing else. ``jdet.train.saturation`` and ``jdet.train.early_stop`` are two.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jdet.parallel import broadcast


class Evaluation(NamedTuple):
    """One evaluation of a run.

    Attributes:
        step: optimiser steps the evaluated state had taken.
        metrics: by name, main one first; nan where a number was not finite.
    """

    step: int
    metrics: Mapping[str, float]


class Decision(NamedTuple):
    """What a run is to do until its next evaluation.

    Attributes:
        lr_scale: factor of the learning rate that the schedule gives, 0 or more.
        stop: the run is complete.
        reason: in words, for the log.
    """

    lr_scale: float = 1.0
    stop: bool = False
    reason: str = ""


Policy = Callable[[Sequence[Evaluation]], Decision]


class Decisions:
    """The evaluations of a run with what its policy makes of them; the same on all processes.

    Attributes:
        any: there is a policy.
        now: the decision in force; without a policy always ``Decision()``.
    """

    def __init__(self, policy: Policy | None, log: Path, until: int | None):
        """Decides on what was recorded. All processes must call this, and ``add``, together.

        Args:
            policy: None: nothing is ever decided.
            log: ``metrics.jsonl`` of the run.
            until: step that the run goes on from; later evaluations do not count. None: it begins.
        """
        self.any = policy is not None
        self.now = Decision()
        self._policy = policy
        self._evaluations: dict[int, Evaluation] = {}
        if policy is not None and until is not None:
            found = broadcast.from_main(lambda: read_evaluations(log, until))
            self._evaluations = {each.step: each for each in found}
            self._decide()

    def add(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Decides again, after one more evaluation; says whether ``now`` is another decision.

        Args:
            step: of the evaluated state.
            metrics: of the evaluation; those of process 0 count.
        """
        if self._policy is None:
            return False
        before = self.now
        self._evaluations[step] = Evaluation(step, _recorded(metrics))
        self._decide()
        return self.now != before

    def _decide(self) -> None:
        policy = self._policy
        assert policy is not None
        evaluations = [self._evaluations[step] for step in sorted(self._evaluations)]
        decision = broadcast.from_main(lambda: policy(evaluations))
        if not (math.isfinite(decision.lr_scale) and decision.lr_scale >= 0):
            raise ValueError(
                f"the policy of the run decided {decision}; lr_scale must be 0 or more"
            )
        self.now = decision


_UNFINISHED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What a line raises that is no line of a log, or has values that are no numbers."""


def read_evaluations(log: Path, until: int) -> list[Evaluation]:
    """The evaluations that ``metrics.jsonl`` holds up to a step, in its order; none where it is not there.

    Args:
        log: the file. Lines of training steps have a learning rate, those of events a name; the others
            are evaluations. What a killed run left unfinished, or is no number, is passed over.
        until: last step that counts.
    """
    found = []
    for line in log.read_text(errors="replace").splitlines() if log.exists() else []:
        try:
            values = json.loads(line)
            step = int(values.pop("step"))
            if step <= until and "lr" not in values and "event" not in values:
                found.append(Evaluation(step, _recorded(values)))
        except _UNFINISHED:
            continue
    return found


def _recorded(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as they are read from a file, where what is not finite is null."""
    return {
        name: float(value) if value is not None and math.isfinite(value) else math.nan
        for name, value in metrics.items()
    }
