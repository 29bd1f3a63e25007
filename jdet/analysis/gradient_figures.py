"""Table, Markdown and figure of the gradient's variance against the batch size."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jdet.analysis.curves import COLORS, dress
from jdet.analysis.gradient_noise import Law, Noise


def rows(points: Sequence[Noise]) -> list[dict[str, float]]:
    """The table: the measurements per batch size N, and their ratio to one over N.

    ``equivalence`` is N · variance over the same at the smallest size: the variance of one step of N
    images at a rate that grows with N, over that of as many images in steps of the smallest size;
    1 by MegDet's argument.
    """
    first = points[0]
    return [
        {
            **point._asdict(),
            "per_image": point.batch * point.variance,
            "equivalence": point.batch * point.variance / (first.batch * first.variance),
            "equivalence_error": _ratio_error(point, first),
        }
        for point in points
    ]


def _ratio_error(point: Noise, first: Noise) -> float:
    """Standard error of ``equivalence``; none at the smallest size, which is 1 by definition."""
    if point is first:
        return 0.0
    ratio = point.batch * point.variance / (first.batch * first.variance)
    return ratio * float(np.hypot(point.error / point.variance, first.error / first.variance))


def table(points: Sequence[Noise]) -> str:
    """``rows`` as CSV."""
    text = io.StringIO()
    found = rows(points)
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def markdown(points: Sequence[Noise], law: Law, notes: Sequence[str]) -> str:
    """``rows``, the fit and the options as Markdown."""
    lines = [
        "| images N | variance | N · variance | of one step, over steps of the smallest N | "
        "squared norm of the mean |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows(points):
        lines.append(
            f"| {row['batch']} | {row['variance']:.4g} ± {row['error']:.2g} | "
            f"{row['per_image']:.4g} | {row['equivalence']:.3f} ± {row['equivalence_error']:.3f} | "
            f"{row['signal']:.4g} |"
        )
    fits = [
        f"* σ²/N: σ² = {law.per_image:.4g}",
        f"* a + b/N: a = {law.rest:.2g} ± {law.rest_error:.2g}",
        f"* c/N^p: p = {law.exponent:.3f} ± {law.exponent_error:.3f}",
        f"* noise scale σ²/|E g|²: {law.noise_scale:.3g} images",
    ]
    return "\n\n".join(["\n".join(lines), "\n".join(fits), "\n".join(notes)]) + "\n"


def draw(points: Sequence[Noise], law: Law) -> Figure:
    """Variance against 1/N with the fit, and N · variance against N; far-spread values on log scales."""
    figure = Figure(figsize=(10.4, 4.1), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = (figure.add_subplot(1, 2, i) for i in (1, 2))
    sizes = np.array([p.batch for p in points], float)
    values = np.array([p.variance for p in points])
    errors = np.array([p.error for p in points])
    measured = dict(fmt="o", color=COLORS[0], capsize=3, label="measured, ± 2 standard errors")
    fitted = dict(color=COLORS[1], linewidth=1.5, label=f"σ²/N, σ² = {law.per_image:.3g}")
    dress(left, "variance of the gradient")
    left.errorbar(1 / sizes, values, 2 * errors, **measured)
    far = np.ptp(np.log(sizes * values)) > np.log(10)
    ends = np.array([1 / sizes[-1] if far else 0.0, 1 / sizes[0]])
    left.plot(ends, law.per_image * ends, **fitted)
    left.set_xlabel("1/N")
    left.legend(frameon=False)
    dress(right, f"N · variance; fitted exponent {law.exponent:.2f} ± {law.exponent_error:.2f}")
    right.errorbar(sizes, sizes * values, 2 * sizes * errors, **measured)
    right.axhline(law.per_image, **fitted)
    right.set_xscale("log", base=2)
    right.set_xticks(sizes, [f"{size:g}" for size in sizes])
    right.set_xlabel("images N")
    if far:
        left.set_xscale("log")
        left.set_yscale("log")
        right.set_yscale("log")
    else:
        left.set_xlim(left=0)
        left.set_ylim(bottom=0)
        right.set_ylim(bottom=0)
    return figure
