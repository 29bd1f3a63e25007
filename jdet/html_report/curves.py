"""The curves of a report: what a run logged, over steps, thinned out to what a screen can show."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdet.analysis.curves import Series, read_metrics, smooth
from jdet.train.folders import METRICS, PHASES, phase_names, read_json
from jdet.types import ConfigError

_POINTS = 400  # of a curve
_NOISY = 40  # points from which a curve gets a smooth one beside it
_LINES = 8  # of a chart

_AVERAGE = re.compile(r"(tta/)?[^/]+/(m?AP|AR)[\w@.]*")


def is_average(name: str) -> bool:
    """Whether a metric is an average precision or recall over all classes, 0 … 1."""
    return _AVERAGE.fullmatch(name) is not None


def logs_of(folder: Path) -> list[tuple[str, Path, int]]:
    """The logs that make up a run: name of the phase ("" without phases), file, and steps before it.

    Args:
        folder: of a run, or of one of its phases.

    Raises:
        ConfigError: the file of phases cannot be read.
    """
    root = folder.parent
    names = phase_names(root)
    if folder.name not in names:
        return [("", folder / METRICS, 0)]
    steps = [
        phase.get("steps", 0) for phase in read_json(root / PHASES, "put back a copy")["phases"]
    ]
    last = names.index(folder.name)
    return [
        (name, root / name / METRICS, sum(steps[:i])) for i, name in enumerate(names[: last + 1])
    ]


def charts(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Every chart of the training, and what kept some of them from being made.

    Args:
        folder: of a run, or of one of its phases: those before it come first in each chart.

    Returns:
        Charts with ``title``, ``x`` and ``y`` (labels of the axes), ``lines`` (``name``, ``x`` and ``y``;
        ``faint``: the noisy one beside a smooth one), ``marks`` (where phases begin) and ``percent``; and
        sentences.
    """
    parts: dict[str, list[Series]] = {}
    marks, notes = [], []
    try:
        logs = logs_of(folder)
    except ConfigError as error:
        logs, notes = [("", folder / METRICS, 0)], [str(error)]
    for name, path, start in logs:
        if not path.exists():
            continue
        try:
            series = read_metrics(path)
        except (ValueError, OSError) as error:
            notes.append(f"Some curves are missing: {error}")
            continue
        for key, (steps, values) in series.items():
            parts.setdefault(key, []).append((steps + start, values))
        if name:
            marks.append({"x": start, "label": name})
    whole = {
        key: (np.concatenate([s for s, _ in each]), np.concatenate([v for _, v in each]))
        for key, each in parts.items()
    }
    averages = [key for key in whole if is_average(key)]
    plans: list[tuple[str, str, Iterable[str], float]] = [
        ("Training loss", "loss", ["loss"], 1),
        ("Parts of the loss", "loss", [key for key in whole if key.startswith("loss/")], 1),
        ("Average precision and recall", "%", averages, 100),
        ("Learning rate", "rate", ["lr"], 1),
        ("Gradient norm", "norm", ["grad_norm"], 1),
        ("Speed", "images per second", ["images_per_second"], 1),
        ("Waiting for data", "% of the time", ["data_wait"], 100),
    ]
    made = []
    for title, unit, names, factor in plans:
        lines = _lines({name: whole[name] for name in names if name in whole}, factor)
        if lines:
            made.append(
                {"title": title, "x": "step", "y": unit, "lines": lines, "marks": marks}
                | {"percent": factor == 100}
            )
    return made, notes


def _lines(series: Mapping[str, Series], factor: float) -> list[dict[str, Any]]:
    lines = []
    for name, (steps, values) in list(series.items())[:_LINES]:
        label, values = name.removeprefix("loss/"), values * factor
        if len(values) >= _NOISY and factor == 1 and name != "lr":
            lines.append(_line(label, *_extremes(steps, values)) | {"faint": True})
            values = smooth(values)
        lines.append(_line(label, *_thinned(steps, values)))
    return lines


def _line(name: str, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    return {"name": name, "x": [int(step) for step in x], "y": rounded(y)}


def rounded(values: Iterable[float], digits: int = 4) -> list[float | None]:
    """Numbers with so many significant digits; None where one is not finite."""
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in map(float, values)]


def _thinned(x: np.ndarray, y: np.ndarray, points: int = _POINTS) -> Series:
    """Evenly spread points of a curve, the first and the last among them."""
    keep = np.unique(np.linspace(0, len(x) - 1, min(points, len(x))).round().astype(int))
    return x[keep], y[keep]


def _extremes(x: np.ndarray, y: np.ndarray) -> Series:
    """The lowest and the highest point of every stretch of a curve, so that no peak is lost."""
    if len(x) <= _POINTS:
        return x, y
    edges = np.linspace(0, len(x), _POINTS // 2 + 1).astype(int)
    keep = {0, len(x) - 1}
    for first, end in zip(edges[:-1], edges[1:], strict=True):
        keep |= {first + int(y[first:end].argmin()), first + int(y[first:end].argmax())}
    order = sorted(keep)
    return x[order], y[order]


def precision_recall(classes: Mapping[str, Any], most_points: int) -> list[dict[str, Any]]:
    """Precision over recall of every class, thinned out, with the area below it.

    Args:
        classes: by name ``recall`` and ``precision``, 0 … 1, and ``score`` where it is known.
        most_points: of each.

    Returns:
        ``name``, ``x``, ``y``, ``score`` (a list, or None) and ``area`` of each class.
    """
    found = []
    for name, curve in classes.items():
        x, y = np.asarray(curve["recall"], float), np.asarray(curve["precision"], float)
        if not len(x) or len(x) != len(y):
            continue
        keep, _ = _thinned(np.arange(len(x)), y, most_points)
        score: Sequence[float] = curve.get("score") or ()
        found.append(
            {
                "name": name,
                "x": rounded(x[keep], 3),
                "y": rounded(y[keep], 3),
                "score": rounded(np.asarray(score, float)[keep], 3)
                if len(score) == len(x)
                else None,
                "area": float(np.trapezoid(y, x)),
            }
        )
    return found
