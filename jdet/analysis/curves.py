"""A run's ``metrics.jsonl`` as one figure: losses, learning rate and average precision over steps."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from absl import logging

from jdet.train.folders import CURVES, EVALUATION, METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = tuple[np.ndarray, np.ndarray]  # steps int [n], values float64 [n]

# Okabe & Ito's colours, readable on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_PRECISIONS = ("voc07/mAP", "voc12/mAP", "coco/AP", "coco/AP50", "coco/AP75")


def read_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads a file of one JSON object per line, each with a ``step``.

    A last line that a killed run left unfinished is passed over.

    Args:
        path: ``metrics.jsonl`` or ``landscape.jsonl`` of a run.

    Returns:
        The objects in the order of the file; ``step`` is an int.

    Raises:
        ValueError: a line in the middle of the file is no JSON object with a ``step``.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            records.append({**record, "step": int(record["step"])})
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number}: not a JSON object with a step") from error
    return records


def read_metrics(path: str | os.PathLike[str]) -> dict[str, Series]:
    """Reads a run's log as one series per metric.

    Where a step stands twice (a run resumed from before it), the later line counts.

    Args:
        path: see ``read_records``, which raises.

    Returns:
        Steps and finite values of every metric, in the order of steps.
    """
    values: dict[str, dict[int, float]] = {}
    for record in read_records(path):
        for name, value in record.items():
            if name != "step" and isinstance(value, (int, float)) and math.isfinite(value):
                values.setdefault(name, {})[record["step"]] = float(value)
    return {
        name: (np.array(sorted(by_step)), np.array([by_step[s] for s in sorted(by_step)]))
        for name, by_step in values.items()
    }


Log = str | os.PathLike[str]


def plot_curves(
    metrics_jsonl_path: Log | Sequence[tuple[Log, int]], out_png: str | os.PathLike[str]
) -> None:
    """Draws the curves of a run: loss, its parts, learning rate, average precision, precision over recall.

    Needs no display and leaves matplotlib's global state alone.

    Args:
        metrics_jsonl_path: see ``read_metrics``; keys ``loss``, ``loss/<part>``, ``lr``,
            ``voc07/mAP``, ``coco/AP``, …. Or those of the phases of a run, each with the steps that were
            taken before it; a line marks where each begins. Beside the last lies, once it was evaluated,
            ``evaluation_curves.json``, the precision over recall of its last evaluation.
        out_png: file of the figure.

    Raises:
        ValueError: the file cannot be parsed, or holds none of these metrics.
    """
    from matplotlib.backends.backend_agg import (
        FigureCanvasAgg,
    )  # a second, which a run's start can do without
    from matplotlib.figure import Figure

    logs = (
        [(metrics_jsonl_path, 0)]
        if isinstance(metrics_jsonl_path, (str, os.PathLike))
        else metrics_jsonl_path
    )
    series = _joined([(read_metrics(path), start) for path, start in logs])
    panels = {
        "training loss": _pick(series, ["loss"]),
        "loss parts": _pick(series, [n for n in series if n.startswith("loss/")]),
        "average precision, %": _pick(series, _PRECISIONS, factor=100.0),
        "learning rate": _pick(series, ["lr"]),
    }
    panels = {title: curves for title, curves in panels.items() if curves}
    if not panels:
        raise ValueError(f"{metrics_jsonl_path}: holds no loss, lr or average precision to draw")
    recall = read_precision_recall(Path(logs[-1][0]).parent / EVALUATION)
    count = len(panels) + bool(recall)
    columns = min(2, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(5.6 * columns, 3.5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    last = max(steps[-1] for curves in panels.values() for steps, _ in curves.values())
    for position, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, position + 1)
        _draw(axes, title, curves)
        axes.set_xlim(0, max(1, 1.02 * last))
        for _, start in logs[1:]:
            axes.axvline(start, color="0.6", linewidth=0.8, linestyle="--")
    if recall:
        _draw_recall(figure.add_subplot(rows, columns, count), recall)
    figure.savefig(out_png, dpi=120)


def draw_log(workdir: Path) -> None:
    """Draws the curves of a run's log so far, on process 0; a run does not end for want of them."""
    log = workdir / METRICS
    if jax.process_index() == 0 and log.exists():
        try:
            plot_curves(log, workdir / CURVES)
        except ValueError:  # nothing is logged yet
            return
        except OSError as error:
            logging.warning("%s was not drawn: %s", workdir / CURVES, error)


def read_precision_recall(path: str | os.PathLike[str]) -> dict[str, Series]:
    """Reads what the evaluators found of precision over recall, by class.

    Args:
        path: ``evaluation_curves.json`` of a run.

    Returns:
        Recall and precision, 0 … 1, of every class by its name, of the first metric that has them. Empty
        where there is no such file, or none that can be read.
    """
    try:
        curves = json.loads(Path(path).read_text(encoding="utf-8"))["curves"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    found: dict[str, dict[str, Series]] = {}
    for name, curve in curves.items():
        metric, kind, label = [*name.split("/", 2), "", ""][:3]
        if kind == "precision_recall" and curve["x"]:
            found.setdefault(metric, {})[label] = (np.array(curve["x"]), np.array(curve["y"]))
    return next(iter(found.values()), {})


def _draw_recall(axes: Axes, classes: Mapping[str, Series]) -> None:
    """Of many classes those with the smallest and the largest area stand in the legend."""
    ranked = sorted(classes, key=lambda name: -float(np.trapezoid(*classes[name][::-1])))
    named = ranked if len(ranked) <= len(COLORS) else [*ranked[:3], *ranked[-3:]]
    for name in ranked:
        color = COLORS[named.index(name)] if name in named else "0.8"
        label = name if name in named else None
        axes.plot(*classes[name], color=color, linewidth=1.5 if label else 0.8, label=label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    dress(axes, "precision over recall, last evaluation")
    axes.set_xlabel("recall")
    axes.legend(frameon=False, fontsize=9)


def _joined(phases: Sequence[tuple[Mapping[str, Series], int]]) -> dict[str, Series]:
    """Series of several logs as one, each moved by the steps before it."""
    parts: dict[str, list[Series]] = {}
    for series, start in phases:
        for name, (steps, values) in series.items():
            parts.setdefault(name, []).append((steps + start, values))
    return {
        name: (np.concatenate([s for s, _ in each]), np.concatenate([v for _, v in each]))
        for name, each in parts.items()
    }


def _pick(series: Mapping[str, Series], names, factor: float = 1.0) -> dict[str, Series]:
    return {name: (series[name][0], series[name][1] * factor) for name in names if name in series}


def _draw(axes: Axes, title: str, curves: Mapping[str, Series]) -> None:
    noisy, precision = "loss" in title, "precision" in title
    for i, (name, (steps, values)) in enumerate(curves.items()):
        color = COLORS[i % len(COLORS)]
        label = f"{name}  {values[-1]:.1f}" if precision else name.removeprefix("loss/")
        if noisy and len(values) > 20:
            axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
            axes.plot(steps, smooth(values), color=color, linewidth=1.8, label=label)
        else:
            marker = "o" if len(values) <= 20 and not title.startswith("learning") else ""
            axes.plot(
                steps, values, color=color, linewidth=1.8, marker=marker, markersize=4, label=label
            )
    if precision:
        axes.set_ylim(0, min(100, 1.15 * max(v.max() for _, v in curves.values()) + 1))
    elif not noisy or min(v.min() for _, v in curves.values()) >= 0:
        axes.set_ylim(bottom=0)
    dress(axes, title)
    if precision or len(curves) > 1:
        axes.legend(frameon=False, fontsize=9)


def dress(axes: Axes, title: str) -> None:
    """Sets title and style of a panel over steps."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("step")
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def smooth(values: np.ndarray) -> np.ndarray:
    """Exponential moving average over about a fortieth of the curve, without lag at the start."""
    keep = 1 - 1 / max(2.0, len(values) / 40)
    mean, weight, out = 0.0, 0.0, np.empty_like(values)
    for i, value in enumerate(values):
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + 1 - keep
        out[i] = mean / weight
    return out
