"""Records of the loss surface, read from ``landscape.jsonl`` of several runs and aligned.

The file is described in docs/landscape.md; ``jdet.analysis.landscape`` draws and tabulates it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdet.analysis.curves import read_records
from jdet.train.folders import LANDSCAPE, RUN
from jdet.types import DataError

QUANTITIES = ("loss", "change", "cosine", "smoothness")


@dataclasses.dataclass(frozen=True)
class Probes:
    """Probes along the gradient g at M steps, S lengths each; nan where a value is not finite.

    Attributes:
        steps: int [M].
        lengths: float64 [S], in learning rates.
        loss: float64 [M, S], of the same batch at the end of the way.
        change: float64 [M, S], L2 norm of the gradient there minus g.
        cosine: float64 [M, S], between the two gradients.
        smoothness: float64 [M, S], change over the length of the way.
    """

    steps: np.ndarray
    lengths: np.ndarray
    loss: np.ndarray
    change: np.ndarray
    cosine: np.ndarray
    smoothness: np.ndarray

    def select(self, rows: np.ndarray, columns: np.ndarray | slice = slice(None)) -> Probes:
        """Those steps and lengths for which the masks bool [M] and [S] are true."""
        tables = {name: getattr(self, name)[rows][:, columns] for name in QUANTITIES}
        return Probes(self.steps[rows], self.lengths[columns], **tables)


@dataclasses.dataclass(frozen=True)
class Run:
    """The records of one run.

    Attributes:
        label: its name in figures and tables.
        status: as in ``run.json``: "completed", "interrupted", "running", "diverged", "failed"; or
            "unknown".
        steps: int [N].
        loss: float64 [N], total training loss of each step's batch.
        norm: float64 [N], L2 norm of its gradient.
        modules: by name such as "backbone/block1", float64 [N]; nan where a step has none.
        diverged: first step whose loss or gradient was not finite; nothing is kept from there on.
        probes: None where there were none.
    """

    label: str
    status: str
    steps: np.ndarray
    loss: np.ndarray
    norm: np.ndarray
    modules: dict[str, np.ndarray]
    diverged: int | None
    probes: Probes | None

    @property
    def title(self) -> str:
        """The label, and the step at which the run diverged."""
        return (
            self.label if self.diverged is None else f"{self.label} (diverged at {self.diverged})"
        )

    def select(self, rows: np.ndarray) -> Run:
        """Those records for which the mask bool [N] is true; probes stay."""
        return dataclasses.replace(
            self,
            steps=self.steps[rows],
            loss=self.loss[rows],
            norm=self.norm[rows],
            modules={name: values[rows] for name, values in self.modules.items()},
        )


def read_run(folder: str | Path, label: str) -> Run:
    """Reads the records of a run, up to the step at which it diverged if it did.

    Args:
        folder: of the run.
        label: its name from here on.

    Raises:
        DataError: no such folder, no records, or a file that cannot be read.
    """
    folder = Path(folder)
    path = folder / LANDSCAPE
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name the workdir of a run")
    remedy = (
        "train with --config.landscape.every=1 (and --config.landscape.probe_every=20, say, for the "
        "probes along the gradient)"
    )
    if not path.exists():
        raise DataError(f"{folder} holds no {LANDSCAPE}; {remedy}")
    try:
        by_step = {record["step"]: record for record in read_records(path)}
        about = folder / RUN
        status = json.loads(about.read_text()).get("status") if about.exists() else None
    except (ValueError, OSError) as error:
        raise DataError(f"{folder} cannot be read: {error}") from error
    steps = sorted(by_step)
    bad = [step for step in steps if not _is_good(by_step[step])]
    good = [by_step[step] for step in steps if not bad or step < bad[0]]
    if not good:
        raise DataError(f"{path} has no record of a finite loss; {remedy}")
    names = [x for record in good for x in record if x.startswith("grad_norm/")]
    return Run(
        label=label,
        status="diverged" if bad else status or "unknown",
        steps=np.array([record["step"] for record in good]),
        loss=_column(good, "loss"),
        norm=_column(good, "grad_norm"),
        modules={x.removeprefix("grad_norm/"): _column(good, x) for x in dict.fromkeys(names)},
        diverged=bad[0] if bad else None,
        probes=_probes([r for r in good if any(x.startswith("probe/") for x in r)]),
    )


def _is_good(record: dict[str, Any]) -> bool:
    numbers = (record.get("loss"), record.get("grad_norm"))
    finite = all(isinstance(x, int | float) and math.isfinite(x) for x in numbers)
    return finite and "event" not in record


def _column(records: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([record.get(name) for record in records], np.float64)  # None becomes nan


def _probes(records: list[dict[str, Any]]) -> Probes | None:
    found = {x.split("/")[1] for record in records for x in record if x.startswith("probe/")}
    names = sorted(found, key=float)
    if not names:
        return None
    tables = {
        quantity: np.stack([_column(records, f"probe/{s}/{quantity}") for s in names], axis=1)
        for quantity in QUANTITIES
    }
    steps = np.array([record["step"] for record in records])
    return Probes(steps, np.array([float(s) for s in names]), **tables)


def on_one_grid(runs: Sequence[Run], align: bool) -> tuple[list[Run], list[str]]:
    """Requires the same steps of all runs, which every comparison between them assumes.

    A run that diverged has the steps of the others up to there. With ``align``, records and probes that
    not all have are left out; nothing is interpolated, as the fluctuation of interpolated norms is
    another quantity.

    Args:
        runs: as read.
        align: leave out what not all have.

    Returns:
        The runs, and a sentence for everything that was left out.

    Raises:
        DataError: their steps or probes differ, or have nothing in common.
    """
    runs, notes = list(runs), []
    if align:
        aligned = _align_probes(_align_records(runs))
        for old, new in zip(runs, aligned):
            if _extent(old) != _extent(new):
                notes.append(f"{old.label}: {_extent(old)} cut to {_extent(new)}")
        runs = aligned
    uneven = [run for run in runs if len(set(np.diff(run.steps))) > 1]
    whole = max(runs, key=lambda run: (run.diverged is None, run.steps[-1]))
    differ = [run for run in runs if not _same(run, run.steps, whole.steps)]
    probed = [(run, run.probes) for run in runs if run.probes is not None]
    if probed:
        _, base = max(probed, key=lambda pair: (pair[0].diverged is None, pair[1].steps[-1]))
        differ += [
            run
            for run, own in probed
            if not _same(run, own.steps, base.steps)
            or not np.array_equal(own.lengths, base.lengths)
        ]
    if uneven or differ:
        raise DataError(
            "the runs do not have their records at the same, evenly spaced steps:\n  "
            + "\n  ".join(f"{run.label}: {_extent(run)}" for run in runs)
            + "\nRecord all with the same config.landscape, "
            + (
                "for these have no common grid"
                if align
                else "or give --align to leave the rest out"
            )
        )
    return runs, notes


def _same(run: Run, steps: np.ndarray, others: np.ndarray) -> bool:
    return np.array_equal(steps, others if run.diverged is None else others[others < run.diverged])


def _align_records(runs: list[Run]) -> list[Run]:
    spacing = math.lcm(1, *(int(gap) for run in runs for gap in np.diff(run.steps)))
    first = max(run.steps[0] for run in runs)
    last = min((run.steps[-1] for run in runs if run.diverged is None), default=math.inf)
    keep = [(r.steps % spacing == 0) & (r.steps >= first) & (r.steps <= last) for r in runs]
    if not all(rows.any() for rows in keep):
        extents = "; ".join(f"{run.label}: {_extent(run)}" for run in runs)
        raise DataError(f"the runs have no recorded step in common: {extents}")
    return [run.select(rows) for run, rows in zip(runs, keep)]


def _align_probes(runs: list[Run]) -> list[Run]:
    probed = [(run, run.probes) for run in runs if run.probes is not None]
    if not probed:
        return runs
    lengths = set.intersection(*({*own.lengths} for _, own in probed))
    whole = [pair for pair in probed if pair[0].diverged is None] or probed
    steps = set.intersection(*({*own.steps} & {*run.steps} for run, own in whole))

    def cut(run: Run) -> Run:
        if run.probes is None:
            return run
        rows = np.isin(run.probes.steps, sorted(steps))
        columns = np.isin(run.probes.lengths, sorted(lengths))
        probes = run.probes.select(rows, columns) if rows.any() and columns.any() else None
        return dataclasses.replace(run, probes=probes)

    return [cut(run) for run in runs]


def _extent(run: Run) -> str:
    """Summary of a run's records, as text."""

    def span(steps: np.ndarray) -> str:
        gaps = sorted({int(gap) for gap in np.diff(steps)})
        every = f", every {' or '.join(map(str, gaps[:3]))}" if gaps else ""
        return f"{len(steps)} from step {steps[0]} to {steps[-1]}{every}"

    text = f"records {span(run.steps)}"
    if run.probes is not None:
        text += f"; probes {span(run.probes.steps)}, lengths {_numbers(run.probes.lengths)}"
    return text + (f"; diverged at {run.diverged}" if run.diverged is not None else "")


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{x:g}" for x in values)
