"""Figures of the loss surface along runs: trajectories, probes ahead of them, norms of modules."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jdet.analysis.curves import COLORS, Series, dress, smooth
from jdet.analysis.landscape_records import Run

# With the colours, told apart in print and by every eye.
STYLES = ("-", "--", "-.", ":")


def trajectories(
    runs: Sequence[Run], losses: Sequence[Series], curves: Sequence[Series], fluctuation: str
) -> Figure:
    """The three panels of ScratchDet's Fig. 1 and 7 (Zhu et al. 2019).

    Args:
        runs: one colour each.
        losses: averaged training loss of each.
        curves: smoothed fluctuation of each.
        fluctuation: how it was smoothed, for the title.
    """
    figure, panels = _panels(1, 3)
    dress(panels[0], "(a) training loss")
    dress(panels[1], "(b) L2 norm of the gradient")
    dress(panels[2], f"(c) fluctuation of the norm, {fluctuation}")
    for i, run in enumerate(runs):
        panels[1].plot(run.steps, run.norm, color=_color(i), alpha=0.2, linewidth=0.8)
        norm = (run.steps, smooth(run.norm))
        for axes, (steps, values) in zip(panels, (losses[i], norm, curves[i])):
            _line(axes, i, run, steps, values)
    _limit(panels[0], runs, losses)
    if any(run.diverged is not None for run in runs):
        _limit(panels[1], runs, [(run.steps, run.norm) for run in runs])
    else:
        _spread_out(panels[1])
    _limit(panels[2], runs, curves)
    return _finish(figure)


def probes(runs: Sequence[Run]) -> Figure | None:
    """Loss, gradient and smoothness ahead of the runs, as Fig. 4 of Santurkar et al. 2018.

    Bands reach from the smallest to the largest value over the lengths of a probe. None where no run
    was probed.
    """
    probed = [(i, run, run.probes) for i, run in enumerate(runs) if run.probes is not None]
    if not probed:
        return None
    figure, panels = _panels(2, 2)
    low = min(found.lengths[0] for _, _, found in probed)
    high = max(found.lengths[-1] for _, _, found in probed)
    dress(panels[0], f"(a) loss {low:g} to {high:g} learning rates along the gradient")
    dress(panels[1], "(b) change of the gradient there, L2")
    dress(panels[2], "(c) effective β-smoothness, largest of a probe")
    dress(panels[3], "(d) cosine between the gradients")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a probe of nan alone
        for i, run, found in probed:
            bands = (found.loss, found.change, None, found.cosine)
            for axes, values in zip(panels, bands):
                if values is not None:
                    _band(axes, i, run, found.steps, values)
            _line(panels[2], i, run, found.steps, np.nanmax(found.smoothness, axis=1))
    for axes in panels[:3]:
        _spread_out(axes)
    panels[3].set_ylim(top=1.02)
    return _finish(figure)


def modules(runs: Sequence[Run]) -> Figure | None:
    """Gradient norm of every module, a panel each; None where none was recorded."""
    names = sorted({name for run in runs for name in run.modules})
    if not names:
        return None
    columns = min(4, len(names))
    figure, panels = _panels(-(-len(names) // columns), columns, width=3.6, height=2.6)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for name, axes in zip(names, panels):
        dress(axes, name)
        drawn = []
        for i, run in enumerate(runs):
            values = run.modules.get(name)
            if values is None or not np.isfinite(values).any():
                continue
            there = np.isfinite(values)
            drawn.append((run, (run.steps[there], smooth(values[there]))))
            _line(axes, i, run, *drawn[-1][1])
        _limit(axes, [run for run, _ in drawn], [curve for _, curve in drawn])
    return _finish(figure)


def _panels(rows: int, columns: int, width: float = 5.2, height: float = 3.6):
    figure = Figure(figsize=(width * columns, height * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _line(axes: Axes, i: int, run: Run, steps: np.ndarray, values: np.ndarray) -> None:
    """One run's curve, and a vertical line where it diverged."""
    axes.plot(
        steps,
        values,
        color=_color(i),
        linestyle=STYLES[i % len(STYLES)],
        linewidth=1.8,
        label=run.title,
        marker="o" if len(steps) == 1 else "",
    )
    if run.diverged is not None:
        axes.axvline(
            run.diverged, color=_color(i), linestyle=STYLES[i % len(STYLES)], linewidth=0.8
        )


def _band(axes: Axes, i: int, run: Run, steps: np.ndarray, values: np.ndarray) -> None:
    """The range of [M, S] over its columns, with both edges drawn."""
    low, high = np.nanmin(values, axis=1), np.nanmax(values, axis=1)
    axes.fill_between(steps, low, high, color=_color(i), alpha=0.2, linewidth=0)
    _line(axes, i, run, steps, low)
    _line(axes, i, run, steps, high)


def _limit(axes: Axes, runs: Sequence[Run], curves: Sequence[Series]) -> None:
    """Limits the axis to four times the range of runs that did not diverge, if another exceeds it."""
    tops = {run.title: np.nanmax(values) for run, (_, values) in zip(runs, curves)}
    whole = [tops[run.title] for run in runs if run.diverged is None]
    if whole and max(whole) > 0:
        axes.set_ylim(0, 1.05 * min(max(tops.values()), 4 * max(whole)))
    elif not whole:
        _spread_out(axes)


def _spread_out(axes: Axes) -> None:
    """Logarithmic scale if values differ by orders of magnitude and all are above 0."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.get_lines()])
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) and drawn.min() > 0 and drawn.max() > 30 * drawn.min():
        axes.set_yscale("log")
    elif len(drawn) and drawn.min() >= 0:
        axes.set_ylim(bottom=0)


def _finish(figure: Figure) -> Figure:
    """One legend for all panels, below them."""
    lines = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        lines |= dict(zip(labels, handles))
    figure.legend(
        lines.values(),
        lines.keys(),
        loc="outside lower center",
        ncols=min(4, len(lines)),
        frameon=False,
    )
    return figure
