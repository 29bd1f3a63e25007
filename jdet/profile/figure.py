"""A profile as bars: modules by kind of operation, and kinds of operations by what bounds them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jdet.analysis.curves import COLORS, dress
from jdet.profile.costs import KINDS
from jdet.profile.report import headline, shortened

SHOWN = 18
"""Modules that get a bar."""

_IDLE = "0.75"
_BOUNDS = dict(zip(("compute", "memory", "links", "neither"), COLORS)) | {"idle": _IDLE}


def draw(report: dict[str, Any]) -> Figure:
    """The bars of a report of ``jdet.profile.profile.profile``."""
    modules = shortened(report["by_module"], SHOWN)
    height = 1.6 + 0.27 * max(len(modules), len(report["by_kind"]))
    figure = Figure(figsize=(13.0, height), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = (figure.add_subplot(1, 2, i) for i in (1, 2))
    _modules(left, report, modules)
    _kinds(right, report["by_kind"])
    least = "" if report["measured"] else ", at the peaks"
    figure.suptitle(f"{headline(report)}: {1e3 * report['seconds']:,.1f} ms{least}", fontsize=11)
    return figure


def save(report: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes the bars of a report as an image."""
    draw(report).savefig(path, dpi=120)


def _modules(axes: Axes, report: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Bars of the modules, each cut by kinds of operations."""
    names = [row["name"] for row in rows]
    kinds = [row["name"] for row in report["by_kind"] if row["name"] in KINDS]
    cells = {
        (cell["module"], cell["kind"]): cell["seconds"] for cell in report["by_module_and_kind"]
    }
    places = range(len(rows))
    begin = [0.0] * len(rows)
    for i, kind in enumerate(kinds):
        widths = [1e3 * cells.get((name, kind), 0.0) for name in names]
        hatch = "" if i < len(COLORS) else "///"
        axes.barh(
            places, widths, left=begin, color=COLORS[i % len(COLORS)], hatch=hatch, label=kind
        )
        begin = [a + b for a, b in zip(begin, widths)]
    # What no kind is known of: idle time, the rest of the modules.
    rest = [max(0.0, 1e3 * row["seconds"] - done) for row, done in zip(rows, begin)]
    axes.barh(places, rest, left=begin, color=_IDLE)
    _label(axes, names, "time by module")
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def _kinds(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Bars of the kinds, coloured by what bounds them, with their least times as marks."""
    places = range(len(rows))
    colors = [_BOUNDS.get(row["bound"], _IDLE) for row in rows]
    axes.barh(places, [1e3 * row["seconds"] for row in rows], color=colors)
    least = [1e3 * row["least"] for row in rows]
    axes.plot(least, places, "|", color="black", markersize=12, label="at the peaks")
    for name in dict.fromkeys(row["bound"] for row in rows):
        axes.barh([0], [0], color=_BOUNDS.get(name, _IDLE), label=name)
    _label(
        axes, [f"{row['name']}  {row['share']:.0%}" for row in rows], "time by kind of operation"
    )
    axes.legend(frameon=False, fontsize=8, loc="lower right", title="bound by", title_fontsize=8)


def _label(axes: Axes, names: Sequence[str], title: str) -> None:
    dress(axes, title)
    axes.set_xlabel("ms of a step")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
