"""A comparison as plain text and as a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jdet.analyse.summary import rows_as_text
from jdet.analysis.curves import COLORS
from jdet.compare.bootstrap import RECALLS
from jdet.compare.compare import CONFIDENCE, METRICS, Comparison, Difference

_BARS = 20
"""Classes in the figure: those that differ most."""


def _called(comparison: Comparison) -> list[str]:
    """The folder names of each recipe's runs, or their paths where two recipes share them."""
    names = [" + ".join(Path(run).name for run in seeds) for seeds in comparison.runs]
    whole = [" + ".join(seeds) for seeds in comparison.runs]
    return names if len(set(names)) == len(names) else whole


def _cells(row: Difference) -> list[str]:
    value = "-" if row.value is None else f"{100 * row.value:.1f}"
    if row.difference is None or row.low is None or row.high is None or row.p_value is None:
        return [value, "", "", "", ""]
    return [
        value,
        f"{100 * row.difference:+.1f}",
        f"{100 * row.low:+.1f} … {100 * row.high:+.1f}",
        f"{row.p_value:.3f}",
        "yes" if row.significant else "no",
    ]


def table(comparison: Comparison) -> str:
    """AP, AP50 and AP75 of all runs, then the AP of each class, in percent."""
    names = _called(comparison)
    lines = []
    classes = list(dict.fromkeys(row.class_name for row in comparison.rows[0]))
    header = ["", "%", "difference", f"{100 * CONFIDENCE:.0f} % interval", "p", "significant"]
    for class_name in classes:
        of_class = [
            {row.metric: row for row in rows if row.class_name == class_name}
            for rows in comparison.rows
        ]
        for metric in METRICS if class_name is None else METRICS[:1]:
            rows = [
                [name, *_cells(held[metric])] for name, held in zip(names, of_class, strict=True)
            ]
            title = metric if class_name is None else f"{metric} of {class_name}"
            lines += [*rows_as_text([title, *header[1:]], rows), ""]
    lines.append(
        f"{comparison.images} images, {comparison.samples} draws of as many; differences to {names[0]}.\n"
        "Significant: more than other images would make of it. Another seed makes a difference too; "
        "seeds of one recipe are given as RUN,RUN."
    )
    return "\n".join(lines)


def plot(comparison: Comparison, path: Path) -> None:
    """Draws precision over recall of every run, and the differences in AP with their intervals."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    names = _called(comparison)
    for i, (name, curve) in enumerate(zip(names, comparison.curves, strict=True)):
        if curve:
            left.plot(RECALLS, curve, color=COLORS[i % len(COLORS)], label=name)
    left.set(xlabel="recall", ylabel="precision, mean of the classes", title="IoU 0.50")
    left.set(xlim=(0, 1), ylim=(0, 1.02))
    if any(comparison.curves):
        left.legend()
    rows = [
        [row for row in rows if row.metric == "AP" and row.low is not None]
        for rows in comparison.rows[1:]
    ]
    largest = sorted(
        {row.class_name for one in rows for row in one if row.class_name is not None},
        key=lambda name: (
            -max(abs(row.difference or 0) for one in rows for row in one if row.class_name == name)
        ),
    )
    shown = [None, *largest[:_BARS]]
    for i, one in enumerate(rows, 1):
        held = {row.class_name: row for row in one}
        known = [place for place, name in enumerate(shown) if name in held]
        if not known:
            continue
        centre, low, high = (
            np.array([100 * (getattr(held[shown[place]], key) or 0.0) for place in known])
            for key in ("difference", "low", "high")
        )
        right.errorbar(
            centre,
            np.array(known) + 0.8 * (i / (len(rows) + 1) - 0.5),
            xerr=[np.maximum(centre - low, 0), np.maximum(high - centre, 0)],
            fmt="o",
            color=COLORS[i % len(COLORS)],
        )
    right.axvline(0, color="grey", linewidth=0.8)
    right.set_yticks(range(len(shown)), ["all classes" if n is None else n for n in shown])
    right.invert_yaxis()
    right.set(xlabel="AP, difference in points", title=f"differences to {names[0]}")
    canvas.print_png(path)
