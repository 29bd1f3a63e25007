"""What a report says of a run, as plain values: read from the files of its folder."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdet import __version__
from jdet.analyse import records
from jdet.analysis.curves import read_precision_recall
from jdet.config import flatten
from jdet.html_report import curves
from jdet.html_report.matching import STEPS, Totals
from jdet.train.checks import read_rows
from jdet.train.folders import EVALUATION, METRICS
from jdet.train.workdir import Run
from jdet.types import DataError

FINDINGS = "doctor.json"
"""What ``jdet.doctor`` found in the data, where its results were put into the workdir (``--out=RUN``)."""

_DEFECTS = 40  # listed
_MATRIX = 30  # classes of a confusion matrix
_MANY = 60  # classes from which their curves have fewer points


def read(path: Path) -> Any:
    """A JSON file of the run; None where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def evaluation(folder: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Report and analysis of the last evaluation, each empty without one, and what is wrong with it."""
    report = read(folder / "report.json")
    report = report if isinstance(report, dict) else {}
    try:
        analysis = records.read(folder)
    except DataError as error:
        return report, {}, str(error)
    return report, analysis._asdict() if analysis else {}, ""


def per_class(report: Mapping[str, Any], analysis: Mapping[str, Any]) -> dict[str, Any]:
    """The table of classes: ``columns`` (key, label, kind) and ``rows``, one object each.

    From the analysis where there is one; else the APs that the evaluators reported.
    """
    columns: list[tuple[str, str, str]] = [("class", "Class", "text")]
    if analysis.get("per_class"):
        columns += [
            ("objects", "Objects", "count"),
            ("images", "Images", "count"),
            ("ap", "AP", "percent"),
            ("ap50", "AP50", "percent"),
            ("ap75", "AP75", "percent"),
            *([("mask_ap", "AP of masks", "percent")] if analysis.get("masks") else []),
            ("score", "Best score", "score"),
            ("precision", "Precision", "percent"),
            ("recall", "Recall", "percent"),
            ("f1", "F1", "percent"),
        ]
        rows = []
        for one in analysis["per_class"]:
            threshold = one.get("threshold") or {}
            row = {key: one[key] for key, _, _ in columns if key in one}
            row |= {k: v for k, v in (threshold.get("best_f1") or {}).items()}
            wanted = threshold.get("at_precision")
            if wanted:
                row["wanted"] = wanted.get("score")
                row["wanted_recall"] = wanted.get("recall")
            rows.append(row)
        asked = [
            one["threshold"]["at_precision"].get("wanted")
            for one in analysis["per_class"]
            if (one.get("threshold") or {}).get("at_precision")
        ]
        if asked and asked[0] is not None:
            share = f"{100 * asked[0]:g} %"
            columns += [
                ("wanted", f"Score for {share} precision", "score"),
                ("wanted_recall", "Its recall", "percent"),
            ]
        return {"columns": columns, "rows": rows}
    table: dict[str, dict[str, Any]] = {}
    for name, value in report.get("metrics", {}).items():
        prefix, middle, label = name.partition("/AP/")
        if middle:
            table.setdefault(label, {"class": label})[prefix] = value
            if (prefix, f"AP, {prefix}", "percent") not in columns:
                columns.append((prefix, f"AP, {prefix}", "percent"))
    return {"columns": columns if table else [], "rows": list(table.values())}


def precision_recall(folder: Path, analysis: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Curves of the classes, from the analysis or else from the evaluators."""
    classes = analysis.get("pr_curves") or {
        name: {"recall": x, "precision": y}
        for name, (x, y) in read_precision_recall(folder / EVALUATION).items()
    }
    return curves.precision_recall(classes, 101 if len(classes) <= _MANY else 34)


def confusion(analysis: Mapping[str, Any]) -> dict[str, Any] | None:
    """The matrix of those classes that are confused most, and all large confusions in a list.

    Returns:
        ``labels``, the last of which is the background, and ``matrix`` of the chosen classes; ``score``;
        ``classes``, how many there are; ``pairs``, the largest confusions of two classes: (ground truth,
        predicted, objects, share of the ground truth's).
    """
    held = analysis.get("confusion") or {}
    labels, matrix = held.get("labels"), held.get("matrix")
    if not labels or not matrix:
        return None
    last = len(labels) - 1
    wrong = [
        (matrix[i][j], i, j) for i in range(last) for j in range(last) if i != j and matrix[i][j]
    ]
    wrong.sort(key=lambda one: -one[0])
    rank: dict[int, float] = dict.fromkeys(range(last), 0.0)
    for count, i, j in wrong:
        rank[i] += count
        rank[j] += count
    for i in range(last):  # then those with most objects
        rank[i] += 1e-9 * sum(matrix[i])
    few = last <= _MATRIX
    kept = list(range(last)) if few else sorted(sorted(rank, key=lambda i: -rank[i])[:_MATRIX])
    kept.append(last)
    return {
        "labels": [labels[i] for i in kept],
        "matrix": [[matrix[i][j] for j in kept] for i in kept],
        "score": held.get("score"),
        "classes": last,
        "pairs": [
            (labels[i], labels[j], count, count / max(sum(matrix[i]), 1))
            for count, i, j in wrong[:15]
        ],
    }


def data_findings(folder: Path, report: Mapping[str, Any]) -> dict[str, Any]:
    """What the run knows of its data: ``facts`` (label and value), ``defects`` and ``findings``."""
    facts: list[tuple[str, Any]] = []
    expected = (report.get("settings") or {}).get("images")
    index = read(folder / "images.json")
    if expected is not None:
        facts.append(("Images to evaluate", expected))
        if isinstance(index, dict) and (missing := expected - len(index.get("images", ()))):
            facts.append(("Of these could not be read, and are not evaluated", missing))
    values = read(folder / "image_statistics.json")
    if isinstance(values, dict):
        for key, label in (
            ("images", "Training images measured"),
            ("dtype", "Their type"),
            ("unreadable", "Could not be read"),
            ("empty", "Without a valid value"),
            ("constant", "Of one value throughout"),
        ):
            if values.get(key) not in (None, 0):
                facts.append((label, values[key]))
    defects: list[list[str]] = []
    total = 0
    try:
        lines = (folder / "defects.txt").read_text("utf-8", "surrogateescape").splitlines()
        defects = [line.split("\t", 3) for line in lines[:_DEFECTS]]
        total = len(lines)
        kinds = Counter(tuple((line.split("\t") + ["", ""])[:3:2]) for line in lines)
        facts += [(f"{role} labels: {what}", n) for (role, what), n in kinds.most_common()]
    except OSError:
        pass
    held = read(folder / FINDINGS)
    findings = [
        {key: one.get(key) for key in ("severity", "title", "consequence", "remedy", "count")}
        for one in (held.get("findings", ()) if isinstance(held, dict) else ())
    ]
    findings += _of_looks(folder)
    return {"facts": facts, "defects": defects, "defects_total": total, "findings": findings}


def _of_looks(folder: Path) -> list[dict[str, Any]]:
    """What the last look at training images found to keep the run from learning, as findings."""
    events = read_rows(folder / METRICS, 10**12, events=True)
    found: list[dict[str, Any]] = []
    for look in [row for row in events if row["event"] == "learning"][-1:]:
        for line in str(look.get("said") or "").splitlines():
            title, _, remedy = line.partition(":")
            after = f"Found after {look['step']:,} steps."
            found.append({"severity": "warning", "title": title, "consequence": after})
            found[-1] |= {"remedy": remedy.strip(), "count": None}
    return found


def cost(run: Run, report: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """Label, value and kind of what the run took."""
    record, config = run.record, run.config
    started, ended = (_time(record.get(key)) for key in ("started", "ended"))
    seconds = (ended - started).total_seconds() if started and ended else None
    step, epoch = record.get("step") or report.get("step"), record.get("num_examples")
    seen = step * config.train.batch_size if step else None
    rows = [
        ("Started", record.get("started"), "text"),
        ("Ended", record.get("ended"), "text"),
        ("From start to end, interruptions included", seconds, "seconds"),
        ("Steps", step, "count"),
        ("Images per step", config.train.batch_size, "count"),
        ("Images seen", seen, "count"),
        ("Training images", record.get("train_images", epoch), "count"),
        ("Images of an epoch, repeats and tiles counted", epoch, "count"),
        ("Training speed, images per second", record.get("images_per_second"), "number"),
        ("Time spent waiting for data", record.get("data_wait"), "percent"),
        ("Evaluation, seconds per image", report.get("seconds_per_image"), "number"),
        ("Devices", record.get("devices"), "count"),
        ("Kind of device", record.get("device_kind"), "text"),
        ("Most memory of a device, or of the process on CPUs", record.get("peak_memory"), "bytes"),
        ("Precision of activations", config.precision, "text"),
    ]
    return [row for row in rows if row[1] is not None]


def versions(run: Run) -> list[tuple[str, Any]]:
    """What the run was made with, and what made the page."""
    held = dict(run.record.get("versions") or {})
    return [*held.items(), ("this page, jdet", __version__)]


def settings(run: Run) -> list[tuple[str, str]]:
    """Every key of the config with its value as text."""
    flat = flatten(json.loads(run.config.to_json()))
    return [(key, json.dumps(value, ensure_ascii=False)) for key, value in flat.items()]


def headline(run: Run, report: Mapping[str, Any], totals: Totals | None, iou: float) -> str:
    """The result in one sentence or two."""
    record, metrics = run.record, report.get("metrics", {})
    status, step = record.get("status", "not begun"), record.get("step", report.get("step"))
    steps, measured = record.get("steps"), report.get("step", record.get("step"))
    after = f"after {measured:,} steps" if measured else "before the first step"
    ends = {
        "running": f"The run is still training ({steps:,} steps planned). " if steps else "",
        "interrupted": f"The run was interrupted at step {step} of {steps}. ",
        "diverged": f"The loss stopped being finite after step {step}. ",
        "failed": f"The run failed: {record.get('error', 'no reason is on record')}. ",
        "not begun": "The run has not begun to train. ",
    }
    before = ends.get(status, "")
    if not metrics:
        return f"{before}There is no evaluation yet, so nothing is known of how well it detects."
    shown = [
        f"{name} {100 * value:.1f} %"
        for name, value in metrics.items()
        if value is not None and curves.is_average(name)
    ][:3]
    images = (report.get("settings") or {}).get("images")
    where = f" on {images:,} image{'s' * (images != 1)}" if images else ""
    numbers = f"{', '.join(shown)}{where}, {after}." if shown else f"Evaluated{where}, {after}."
    ahead = report.get("forecast")
    if ahead and run.record.get("status") != "completed":  # early, it is the end all the same
        numbers += f" Forecast: {ahead['said']}."
    if totals is None or not totals.objects:
        return f"{before}{numbers}"
    best = totals.best()
    found, false = int(totals.found[best]), int(totals.false[best])
    precision = f"{100 * found / (found + false):.1f} %" if found + false else "no"
    return (
        f"{before}It finds {100 * found / totals.objects:.1f} % of the objects at {precision} precision "
        f"(scores from {best / STEPS:.2f}, IoU {iou:g}). {numbers}"
    )


def _time(text: Any) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
