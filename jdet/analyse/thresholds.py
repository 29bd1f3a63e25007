"""The score threshold of each class: that of the best F1, and the lowest for a wanted precision."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np

from jdet.analyse import records
from jdet.analyse.records import AtPrecision, BestF1, Thresholds
from jdet.analyse.scored import Outcomes
from jdet.types import ConfigError

PRECISION = 0.9
"""Wanted where nothing else is asked for."""

USUAL = 0.3
"""Lowest score that counts where a run has no threshold."""

MOST_SAID = 10
"""Classes whose thresholds are told one by one."""

CHOICES = ("auto", "precision")
"""What may be asked of ``of_run`` besides a number."""


def parse(text: str) -> float | str:
    """A score of the command line: a number, or a name."""
    try:
        return float(text)
    except ValueError:
        return text


def check(score: float | str) -> None:
    """Refuses what ``of_run`` cannot know.

    Raises:
        ConfigError: it is neither in 0 … 1 nor one of ``CHOICES``.
    """
    named = isinstance(score, str)
    if score not in CHOICES if named else not 0 <= score <= 1:  # not so where it is nan
        raise ConfigError(
            f"--score={score} must be in 0 … 1, such as --score=0.3, or one of {', '.join(CHOICES)}"
        )


class _Cuts:
    """Precision and recall at every place where detections, best first, can be cut off by a score."""

    def __init__(self, scores: np.ndarray, right: np.ndarray, objects: int):
        ends = np.flatnonzero(np.diff(scores, append=-np.inf))  # the last of equal scores
        found = np.cumsum(right)[ends]
        following = np.append(scores, scores[-1:])[ends + 1]
        # Between two scores, so that rounding them does not move a detection to the other side.
        self.score = (scores[ends] + following) / 2
        self.precision = found / (ends + 1)
        self.recall = found / objects
        self.f1 = 2 * found / (ends + 1 + objects)


def choose(scores: np.ndarray, right: np.ndarray, objects: int, wanted: float) -> Thresholds:
    """The thresholds of a class.

    Args:
        scores: float [D], best first.
        right: bool [D].
        objects: how many there were to find.
        wanted: precision.

    Returns:
        Null for both without objects or where none was found; ``at_precision`` also where no threshold
        has the precision.
    """
    if not objects or not right.any():
        return {"best_f1": None, "at_precision": None}
    cuts = _Cuts(scores, right, objects)
    best = int(cuts.f1.argmax())
    f1: BestF1 = {
        "score": float(cuts.score[best]),
        "precision": float(cuts.precision[best]),
        "recall": float(cuts.recall[best]),
        "f1": float(cuts.f1[best]),
    }
    reached = np.flatnonzero(cuts.precision >= wanted)
    at: AtPrecision | None = None
    if len(reached) and cuts.recall[reached[-1]] > 0:
        lowest = reached[-1]
        at = {
            "wanted": float(wanted),
            "score": float(cuts.score[lowest]),
            "precision": float(cuts.precision[lowest]),
            "recall": float(cuts.recall[lowest]),
        }
    return {"best_f1": f1, "at_precision": at}


def of_classes(found: Outcomes, wanted: float) -> list[Thresholds]:
    """The thresholds of every class."""
    return [choose(*found.of_class(label), wanted) for label in range(found.objects.shape[1])]


def scores_to_keep(found: Outcomes, chosen: list[Thresholds]) -> tuple[np.ndarray, float | None]:
    """The score of best F1 of each class, float64 [K], and of all classes together.

    A class that has none gets that of all. Where no detection is right this is ``USUAL``; without ground
    truth it is None, and classes get infinity.
    """
    objects = int(found.objects.sum())
    every = choose(found.scores, found.right, objects, PRECISION)["best_f1"]
    overall = (every["score"] if every else USUAL) if objects else None
    default = np.inf if overall is None else overall
    own = [one["best_f1"]["score"] if one["best_f1"] else default for one in chosen]
    return np.array(own, float), overall


def of_run(
    folder: Path, class_names: tuple[str, ...], score: float | str, step: int | None = None
) -> tuple[np.ndarray, str]:
    """The lowest score to report of each class, for predictions.

    Args:
        folder: of the run.
        class_names: K names.
        score: a number for all; "auto": those of best F1 that the run's last evaluation found, or
            ``USUAL`` where there are none; "precision": those of the precision that was wanted of it,
            infinity for a class with objects that does not reach it.
        step: of the weights that predict; None: not compared with that of the analysis.

    Returns:
        float64 [K]; and in words what was chosen.

    Raises:
        ConfigError: "precision" is asked of a run that was not analysed.
        DataError: ``analysis.json`` cannot be read, or is of other classes.
    """
    if not isinstance(score, str):
        return np.full(len(class_names), float(score)), f"score >= {score}"
    analysis, renew = records.read(folder), f"python -m jdet.analyse {shlex.quote(str(folder))}"
    if analysis is not None and tuple(analysis.classes) != tuple(class_names):
        raise ConfigError(
            f"{folder / records.FILE} is of the classes {', '.join(analysis.classes)}, the run of "
            f"{', '.join(class_names)}; renew it: {renew}"
        )
    if analysis is None:
        if score == "auto":
            return np.full(len(class_names), USUAL), f"score >= {USUAL}, the run has no thresholds"
        raise ConfigError(f"--score=precision: {folder} has no {records.FILE}; make it: {renew}")
    chosen, said = np.full(len(class_names), USUAL), []
    for label, one in enumerate(analysis.per_class):
        best, at = one["threshold"]["best_f1"], one["threshold"]["at_precision"]
        used = best if score == "auto" else at
        if used is not None:
            chosen[label] = used["score"]
            said.append(f"{one['class']} {used['score']:.3g}")
        elif not one["objects"]:
            said.append(f"{one['class']} {USUAL} (not measured)")
        elif score == "auto":
            said.append(f"{one['class']} {USUAL} (no detection was right)")
        else:
            chosen[label] = np.inf
            said.append(f"{one['class']} none (the precision is never reached)")
    if len(said) > MOST_SAID:
        said = [f"{chosen.min():.3g} to {chosen.max():.3g}, all of them in {records.FILE}"]
    kind = "of best F1" if score == "auto" else "for the wanted precision"
    if step is not None and analysis.step not in (None, step):
        kind += f", measured at step {analysis.step}"
    return chosen, f"the run's thresholds {kind}: {', '.join(said)}"
