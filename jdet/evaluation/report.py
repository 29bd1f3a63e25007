"""The last evaluation as a file (``report.json``) and as a printed table."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from ml_collections import ConfigDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jdet.atomic_files import write_json
from jdet.evaluation.gather import Evaluator
from jdet.types import Source

MULTI_SCALE = "tta/"
"""Begins the names of metrics of multi-scale testing."""

_RENAMED = {"seconds_per_picture": "seconds_per_image"}
"""Keys of reports of earlier versions."""


def settings_of(
    config: ConfigDict, source: Source, evaluators: Sequence[Evaluator]
) -> dict[str, Any]:
    """The settings that are needed to compare the numbers with others.

    Args:
        config: the run's config.
        source: the evaluation set.
        evaluators: of ``config.eval.metrics``, in this order.

    Returns:
        Plain values for ``write_report``: the set and how many of its images were evaluated, input
        size, the protocol of each metric, training batches over which the statistics of batch norms were
        measured, and the model's group of the config, which holds score threshold, NMS overlap and
        number of detections.
    """
    return {
        "data": json.loads(config.data.eval.to_json()),
        "images": min(len(source), config.eval.max_images or len(source)),
        "protocols": {
            name: getattr(evaluator, "protocol", "")
            for name, evaluator in zip(config.eval.metrics, evaluators, strict=True)
        },
        "input_size": config.input_size,
        "precise_bn": config.eval.precise_bn,
        "model": json.loads(config.model.to_json()),
        **({"tile": config.eval.tile.to_dict()} if config.eval.tile.side else {}),
    }


def write_report(
    path: str | os.PathLike[str],
    *,
    step: int,
    metrics: Mapping[str, float],
    settings: Mapping[str, Any] | None = None,
    seconds_per_image: float | None = None,
) -> None:
    """Writes the arguments as JSON, whole or not at all.

    Args:
        path: the file, replaced if it exists; its folder is made if missing.
        step: optimiser steps the evaluated weights have taken.
        metrics: numbers under slash names; what is not a number (nan) becomes null.
        settings: from ``settings_of``.
        seconds_per_image: reading, detecting and scoring, without compilation; None: not known.
    """
    report = {
        "step": int(step),
        "metrics": {name: float(value) for name, value in metrics.items()},
        "settings": dict(settings or {}),
        "seconds_per_image": seconds_per_image,
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_json(path, report)


def add_multi_scale(
    path: str | os.PathLike[str],
    *,
    step: int,
    metrics: Mapping[str, float],
    settings: Mapping[str, Any],
    seconds_per_image: float | None,
) -> dict[str, Any]:
    """Adds multi-scale testing to the report of the same step, beside the numbers of one size.

    A report of another step is replaced; its numbers belong to other weights.

    Args:
        path: the file.
        step: optimiser steps the evaluated weights have taken.
        metrics: numbers under names that begin with ``MULTI_SCALE``.
        settings: the group ``eval.tta`` of the config, kept under "tta".
        seconds_per_image: as in ``write_report``, kept under "tta".

    Returns:
        The whole report.
    """
    report: dict[str, Any] = _read(path)
    if report.get("step") != int(step):
        nothing = {"metrics": {}, "settings": {}, "seconds_per_image": None}
        report = {"step": int(step), **nothing}
    held = {k: v for k, v in report["metrics"].items() if not k.startswith(MULTI_SCALE)}
    report["metrics"] = held | {name: float(value) for name, value in metrics.items()}
    report["tta"] = {"settings": dict(settings), "seconds_per_image": seconds_per_image}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_json(path, report)
    return report


def multi_scale_metrics(
    path: str | os.PathLike[str], step: int, settings: Mapping[str, Any]
) -> dict[str, float]:
    """What a report holds of multi-scale testing at this step by these settings; empty if nothing."""
    report = _read(path)
    same = report.get("tta", {}).get("settings") == json.loads(json.dumps(dict(settings)))
    if report.get("step") != int(step) or not same:
        return {}
    held = {k: v for k, v in report["metrics"].items() if k.startswith(MULTI_SCALE)}
    return {k: math.nan if v is None else v for k, v in held.items()}


def format_speed(report: Mapping[str, Any]) -> str:
    """One line: the time per image of one size and of several sizes."""
    one, many = report["seconds_per_image"], report["tta"]["seconds_per_image"]
    if one is None or many is None:
        return "seconds per image: not measured, the set has one batch"
    return (
        f"seconds per image: {one:.4f} at one size, {many:.4f} at several, {many / one:.1f} times"
    )


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A report, with the keys of today; empty where there is none."""
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    for part in (report, report.get("tta", {})):
        for old, new in _RENAMED.items():
            if old in part:
                part[new] = part.pop(old)
    return report


def per_class(evaluators: Iterable[Evaluator]) -> dict[str, str]:
    """Prefixes of metrics with a value per class and the names of their means, of all evaluators."""
    found: dict[str, str] = {}
    for evaluator in evaluators:
        found |= getattr(evaluator, "per_class", {})
    return found


def format_table(
    metrics: Mapping[str, float], class_names: Sequence[str], means: Mapping[str, str]
) -> str:
    """The numbers as plain text: a row per class, their mean, then all other metrics.

    Args:
        metrics: numbers under slash names. Those under the prefixes of ``means`` are 0 … 1 and shown in
            percent, others as they are; nan is shown as a dash.
        class_names: rows of the table, in order.
        means: from ``per_class``.
    """
    header, rows, others = _rows(metrics, class_names, means)
    lines = []
    if rows:
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        rule = "-" * (sum(widths) + 2 * len(widths) - 2)
        for cells in (header, *rows):
            name, *values = zip(cells, widths, strict=True)
            lines.append("  ".join([name[0].ljust(name[1]), *(v.rjust(w) for v, w in values)]))
        lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
    width = max((len(name) for name, _ in others), default=0)
    return "\n".join([*lines, *(f"{name.ljust(width)}  {value:>6}" for name, value in others)])


def print_table(
    metrics: Mapping[str, float],
    class_names: Sequence[str],
    means: Mapping[str, str],
    *,
    file: TextIO | None = None,
) -> None:
    """Prints the table, with colours and rules on a terminal and as ``format_table`` elsewhere.

    Args:
        metrics: numbers under slash names, shown as in ``format_table``.
        class_names: rows of the table, in order.
        means: from ``per_class``.
        file: where to, standard output if None.
    """
    console = Console(file=file or sys.stdout)
    if not console.is_terminal:
        console.file.write(format_table(metrics, class_names, means) + "\n")
        return
    header, rows, others = _rows(metrics, class_names, means)
    if rows:
        table = Table(title="average precision", title_justify="left")
        table.add_column(header[0])
        for name in header[1:]:
            table.add_column(name, justify="right")
        for cells in rows[:-1]:
            table.add_row(*map(escape, cells))
        table.add_section()
        table.add_row(*rows[-1], style="bold")
        console.print(table)
    if others:
        grid = Table.grid(padding=(0, 2))
        for name, value in others:
            grid.add_row(escape(name), value)
        console.print(grid)


def _rows(
    metrics: Mapping[str, float], class_names: Sequence[str], means: Mapping[str, str]
) -> tuple[list[str], list[list[str]], list[tuple[str, str]]]:
    """Header, a row per class followed by the row of means, and the metrics that fit neither."""
    known = {**means, **{f"{MULTI_SCALE}{v}": mean for v, mean in means.items()}}
    variants = [v for v in known if any(k.startswith(f"{v}/AP/") for k in metrics)]
    rows = [
        [name, *(_percent(metrics.get(f"{v}/AP/{name}")) for v in variants)] for name in class_names
    ]
    rows.append(["mean", *(_percent(metrics.get(f"{v}/{known[v]}")) for v in variants)])
    shown = {f"{v}/{known[v]}" for v in variants}
    others = [
        (name, _percent(value) if any(name.startswith(f"{v}/") for v in known) else _plain(value))
        for name, value in metrics.items()
        if name not in shown and not any(name.startswith(f"{v}/AP/") for v in variants)
    ]
    return ["AP, %", *variants], rows if variants else [], others


def _percent(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.2f}"


def _plain(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else "-"
