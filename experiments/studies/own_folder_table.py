"""What the runs of ``own_folder`` say: tables, the arm that other sets choose, and curves."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.studies.runs import DONE, Run
from experiments.studies.runs import seconds as training_seconds
from jdet import atomic_files
from jdet.train.policy import read_evaluations

AP, AP50 = "coco/AP", "coco/AP50"
BASELINE = "today"


class Cell(NamedTuple):
    """An arm on a set, over its seeds.

    Attributes:
        ap: mean of COCO's AP; a run that diverged or failed counts as 0. nan: no run has ended.
        ap50: the same at IoU 0.5.
        minutes: of training, mean.
        steps: mean.
        runs: that have ended.
        failures: of them, that diverged or failed.
    """

    ap: float
    ap50: float
    minutes: float
    steps: float
    runs: int
    failures: int


def failure(run: Run) -> Path:
    """The file that says that a run failed; beside its folder, which may not be there."""
    return run.folder.with_name(f"{run.folder.name}.failed")


def begun(runs: Path) -> list[Run]:
    """All runs of the bench that there are in a folder."""
    found = []
    for name in sorted({path.with_name(path.stem) for path in runs.glob("*/*-m*-s*.log")}):
        if match := re.fullmatch(r"(.+)-m([\d.e+]+)-s(\d+)", name.name):
            arm, minutes, seed = match.groups()
            found.append(Run(name.parent.name, f"{arm}@{minutes}", int(seed), name))
    return found


def status(run: Run) -> str:
    """How a run ended: "completed", "diverged" or "failed"; "" where it has not."""
    found = run.record().get("status", "")
    if found in DONE:
        return found
    return "failed" if failure(run).exists() else ""


def score(run: Run, metric: str) -> float:
    """A metric of a run that has ended; 0 where it came to nothing, nan where it has not ended."""
    ended = status(run)
    if ended in ("diverged", "failed"):
        return 0.0
    value = run.record().get("metrics", {}).get(metric) if ended else None
    return math.nan if value is None else value


def cells(runs: list[Run]) -> dict[str, dict[str, dict[str, Cell]]]:
    """Budget → arm → set → what came out."""
    grouped: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        arm, _, minutes = run.arm.rpartition("@")
        if status(run):
            grouped[minutes, arm, run.study].append(run)
    found: dict[str, dict[str, dict[str, Cell]]] = defaultdict(lambda: defaultdict(dict))
    for (minutes, arm, name), own in sorted(grouped.items(), key=lambda item: item[0]):
        trained = [run.record() for run in own if status(run) in DONE]
        found[minutes][arm][name] = Cell(
            ap=statistics.fmean(score(run, AP) for run in own),
            ap50=statistics.fmean(score(run, AP50) for run in own),
            minutes=_mean([training_seconds(record) / 60 for record in trained]),
            steps=_mean([record["step"] for record in trained]),
            runs=len(own),
            failures=sum(status(run) != "completed" for run in own),
        )
    return {minutes: dict(arms) for minutes, arms in found.items()}


def _mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def chosen(arms: Mapping[str, Mapping[str, Cell]]) -> dict[str, dict[str, Any]]:
    """For every set the arm that is best on the others, of the arms that have run on all sets.

    Returns:
        By set ``arm``, its ``ap50`` on the set, and ``best`` and ``best_ap50``, the arm that would have
        been best on it. Empty with fewer than two sets or arms.
    """
    sets = sorted({name for row in arms.values() for name in row})
    whole = {
        arm: row
        for arm, row in arms.items()
        if row.keys() == set(sets) and not any(math.isnan(cell.ap50) for cell in row.values())
    }
    if len(sets) < 2 or len(whole) < 2:
        return {}
    found = {}
    for name in sets:
        others = {
            arm: statistics.fmean(cell.ap50 for other, cell in row.items() if other != name)
            for arm, row in whole.items()
        }
        arm = max(others, key=lambda each: others[each])
        best = max(whole, key=lambda each: whole[each][name].ap50)
        found[name] = dict(
            arm=arm, ap50=whole[arm][name].ap50, best=best, best_ap50=whole[best][name].ap50
        )
    return found


def markdown(found: Mapping[str, Mapping[str, Mapping[str, Cell]]]) -> str:
    """The tables, a section for each budget."""
    lines = []
    for minutes in sorted(found, key=float):
        arms = found[minutes]
        lines += [f"## {minutes} minutes", ""]
        heads = ["set", "arm", "AP, %", "AP50, %", f"AP50 − {BASELINE}", "minutes", "steps", "runs"]
        lines += [f"| {' | '.join([*heads, 'failed'])} |", "| --- " * (len(heads) + 1) + "|"]
        for name in sorted({name for row in arms.values() for name in row}):
            for arm, row in arms.items():
                if name in row:
                    lines.append(_row(name, arm, row[name], arms.get(BASELINE, {}).get(name)))
        lines.append("")
        if choice := chosen(arms):
            lines += ["| set | chosen on the others | AP50, % | best on the set | AP50, % |"]
            lines += ["| --- " * 5 + "|"]
            for name, row in choice.items():
                pair = _percent(row["ap50"]), _percent(row["best_ap50"])
                lines.append(f"| {name} | {row['arm']} | {pair[0]} | {row['best']} | {pair[1]} |")
            lines.append("")
    return "\n".join(lines)


def _row(name: str, arm: str, cell: Cell, baseline: Cell | None) -> str:
    gain = "–" if baseline is None else f"{100 * (cell.ap50 - baseline.ap50):+.1f}"
    cost = ("–", "–") if math.isnan(cell.steps) else (f"{cell.minutes:.1f}", f"{cell.steps:.0f}")
    values = [_percent(cell.ap), _percent(cell.ap50), gain, *cost]
    values += [str(cell.runs), str(cell.failures)]
    return f"| {name} | {arm} | {' | '.join(values)} |"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def curves(runs: list[Run]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Set → arm, budget and seed → minutes of training and AP50 at every evaluation."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(dict)
    for run in runs:
        config = run.folder / "config.json"
        if not config.exists():
            continue
        step = json.loads(config.read_text())["train"]["budget"]["step_seconds"]
        evaluations = read_evaluations(run.folder / "metrics.jsonl", until=10**9)
        points = [
            (each.step * step / 60, each.metrics[AP50])
            for each in evaluations
            if AP50 in each.metrics and not math.isnan(each.metrics[AP50])
        ]
        if points:
            found[run.study][f"{run.arm}, seed {run.seed}"] = points
    return dict(found)


def draw(found: Mapping[str, Mapping[str, list[tuple[float, float]]]], path: Path) -> None:
    """Draws the curves, a panel for each set."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(found), 4)
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, lines) in enumerate(sorted(found.items()), 1):
        axes = figure.add_subplot(rows, columns, place, title=name, xlabel="minutes", ylim=(0, 1))
        for label, points in lines.items():
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6)
    figure.savefig(path, dpi=110)


def write(runs: Path) -> str:
    """Writes tables, numbers and curves of all runs in a folder; returns the tables."""
    there = begun(runs)
    found = cells(there)
    text = markdown(found)
    numbers = {
        minutes: {
            "arms": {
                arm: {name: cell._asdict() for name, cell in row.items()}
                for arm, row in arms.items()
            },
            "chosen": chosen(arms),
        }
        for minutes, arms in found.items()
    }
    runs.mkdir(parents=True, exist_ok=True)
    atomic_files.write_json(runs / "table.json", numbers)
    atomic_files.write_text(runs / "table.md", text)
    if lines := curves(there):
        draw(lines, runs / "curves.png")
    return text
