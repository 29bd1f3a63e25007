"""What the finished runs of a study say: numbers, claims that hold, and a table in Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.studies.questions import STUDIES
from experiments.studies.runs import DONE, Run, begun, seconds
from jdet import atomic_files

T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t at 97.5 % by degrees of freedom; more count as nine."""


def score(study: str, record: Mapping[str, Any]) -> float:
    """Main metric of a run; 0 for one that diverged, as its weights are of no use; nan if unknown."""
    if record.get("status") == "diverged":
        return 0.0
    value = record.get("metrics", {}).get(STUDIES[study].main)
    return float("nan") if value is None else value


def summary(study: str, runs: list[Run]) -> dict[str, Any]:
    """What the finished runs of a study say.

    Returns:
        ``arms`` (name to ``seeds`` and their ``scores``, ``mean``, ``low``, ``high``, ``diverged``,
        ``steps``, ``seconds`` of training, and the means of the further metrics), ``claims`` (text to
        True, False, or None while arms are missing), and ``pairs``, the differences it asks for.
    """
    arms: dict[str, dict[str, Any]] = {}
    for run in runs:
        record = run.record()
        if record.get("status") in DONE:
            arm = arms.setdefault(run.arm, {"seeds": [], "records": []})
            arm["seeds"].append(run.seed)
            arm["records"].append(record)
    for arm in arms.values():
        records = arm.pop("records")
        scores = [score(study, record) for record in records]
        arm |= dict(
            scores=scores,
            mean=statistics.fmean(scores),
            low=min(scores),
            high=max(scores),
            diverged=sum(record["status"] == "diverged" for record in records),
            steps=max(record["step"] for record in records),
            seconds=statistics.fmean(seconds(record) for record in records),
            metrics=averages(records),
        )
    scores = {name: arm["scores"] for name, arm in arms.items()}
    whole = scores.keys() == STUDIES[study].arms.keys()
    claims = {text: holds(scores) if whole else None for text, holds in STUDIES[study].claims}
    by_seed = {name: dict(zip(arm["seeds"], arm["scores"])) for name, arm in arms.items()}
    pairs = [
        found | {"arms": (a, b)}
        for a, b in STUDIES[study].pairs
        if (found := paired(by_seed.get(a, {}), by_seed.get(b, {}))) is not None
    ]
    return {"question": STUDIES[study].question, "arms": arms, "claims": claims, "pairs": pairs}


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> dict[str, Any] | None:
    """Mean difference of two arms over their common seeds, with its 95 % interval by Student's t.

    Args:
        one: score by seed; seeds without a score (nan) do not count.
        other: likewise.

    Returns:
        ``seeds``, ``mean``, and ``low`` and ``high``, None where there is one seed only; None without any.
    """
    gaps = [one[seed] - other[seed] for seed in one if seed in other]
    gaps = [gap for gap in gaps if not math.isnan(gap)]
    if not gaps:
        return None
    mean, count = statistics.fmean(gaps), len(gaps)
    if count < 2:
        return {"seeds": count, "mean": mean, "low": None, "high": None}
    half = T95.get(count - 1, T95[max(T95)]) * statistics.stdev(gaps) / count**0.5
    return {"seeds": count, "mean": mean, "low": mean - half, "high": mean + half}


def averages(records: list[dict[str, Any]]) -> dict[str, float]:
    """Mean of every metric over the runs that did not diverge and have it.

    Not every set has objects of every size: a metric without any is null in ``run.json``.
    """
    values: dict[str, list[float]] = {}
    for record in records:
        if record["status"] == "completed":
            for name, value in record["metrics"].items():
                if value is not None:
                    values.setdefault(name, []).append(value)
    return {name: statistics.fmean(column) for name, column in values.items()}


def markdown(study: str, found: Mapping[str, Any]) -> str:
    """The table of a summary."""
    classes = sorted({n for arm in found["arms"].values() for n in arm["metrics"]})
    columns = [name for name in classes if name.startswith("voc07/AP/")]
    columns += [name for name in STUDIES[study].columns if name in classes]
    heads = ["arm", f"{STUDIES[study].main}, %", "range", "seeds", "steps", "min", *columns]
    lines = [
        f"**{found['question']}**",
        "",
        f"| {' | '.join(heads)} |",
        "| --- " * len(heads) + "|",
    ]
    for name, arm in found["arms"].items():
        spread = f"{100 * arm['low']:.1f} … {100 * arm['high']:.1f}"
        cells = [name, f"{100 * arm['mean']:.1f}", spread, str(len(arm["scores"]))]
        if arm["diverged"]:
            cells[1] += f" ({arm['diverged']} diverged)"
        cells += [str(arm["steps"]), f"{arm['seconds'] / 60:.1f}"]
        cells += [f"{100 * arm['metrics'][c]:.1f}" if c in arm["metrics"] else "–" for c in columns]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for pair in found["pairs"]:
        (a, b), seeds = pair["arms"], pair["seeds"]
        ends = (
            ""
            if pair["low"] is None
            else f", 95 % {100 * pair['low']:+.1f} … {100 * pair['high']:+.1f}"
        )
        lines.append(f"* {a} − {b}, same seed: {100 * pair['mean']:+.1f} ({seeds} seeds{ends})")
    for text, holds in found["claims"].items():
        verdict = {True: "holds", False: "does not hold", None: "not all arms run"}[holds]
        lines.append(f"* {text}: {verdict}")
    return "\n".join(lines) + "\n"


def write(study: str, folder: Path) -> str:
    """Writes table and numbers of all finished runs of a study in a folder; returns the table."""
    found = summary(study, begun(study, folder))
    text = markdown(study, found)
    (folder / study).mkdir(parents=True, exist_ok=True)  # its runs may all lie with other studies
    atomic_files.write_json(folder / study / "table.json", found)
    atomic_files.write_text(folder / study / "table.md", text)
    return text
