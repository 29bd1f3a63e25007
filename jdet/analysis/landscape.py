"""Why norms let a detector train from scratch: the loss surface of runs, drawn and tabulated.

    python -m jdet.analysis.landscape runs/none runs/bn --out=landscape --labels=none,BN

``landscape.png`` has the panels of ScratchDet's Fig. 1 and 7 (Zhu et al. 2019), ``probes.png`` those of
Santurkar et al. 2018 (Fig. 4) where there were probes, ``modules.png`` the gradient norms of modules;
``landscape.csv`` and ``landscape.md`` hold the numbers. docs/landscape.md says how to read them.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdet import cli
from jdet.analysis import landscape_figures
from jdet.analysis.landscape_records import Run, on_one_grid, read_run
from jdet.atomic_files import write_text
from jdet.types import ConfigError, DataError

AVERAGE = 10
"""Records that the loss is averaged over, as Caffe's ``average_loss: 10`` of the released solvers."""

COLUMNS = {
    "run": "label",
    "status": "how the run ended",
    "last_step": "last recorded step",
    "final_loss": f"training loss, mean of the last {AVERAGE} records",
    "start_fluctuation": "fluctuation of the gradient norm at the start of the smoothed curve",
    "early_fluctuation": "mean fluctuation over the first tenth of the steps, not smoothed",
    "mean_grad_norm": "L2 norm of the gradient, mean over the records",
    "mean_smoothness": "effective beta, the largest over the lengths of a probe: mean over the probes",
    "max_smoothness": "the same, maximum over the probes",
    "mean_loss_range": "largest minus smallest loss along the gradient: mean over the probes",
    "max_loss_range": "the same, maximum over the probes",
    "mean_grad_change": "largest L2 change of the gradient along itself: mean over the probes",
    "mean_cosine": "smallest cosine between the gradient and those ahead: mean over the probes",
    "probes_not_finite": "probes that met a loss that is not finite; their maxima leave it out",
}
ORDERED = {
    "final_loss": "final training loss",
    "start_fluctuation": "fluctuation of the gradient norm at the start",
    "mean_grad_norm": "mean gradient norm",
    "mean_smoothness": "mean effective beta-smoothness",
    "mean_loss_range": "mean loss range along the gradient",
}


def running_mean(values: np.ndarray, count: int = AVERAGE) -> np.ndarray:
    """Mean of each value and the ``count - 1`` before it; of fewer at the start. [n] to [n]."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - count, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def running_std(steps: np.ndarray, values: np.ndarray, window: int) -> np.ndarray:
    """Standard deviation of the values in the last ``window`` steps; nan at the first. [n] to [n]."""
    centred = values - values.mean()
    sums, squares = (np.concatenate([[0.0], np.cumsum(x)]) for x in (centred, centred**2))
    ends = np.arange(1, len(values) + 1)
    starts = np.searchsorted(steps, steps - window, side="right")
    counts = ends - starts
    means = (sums[ends] - sums[starts]) / counts
    variances = (squares[ends] - squares[starts]) / counts - means**2
    return np.where(counts > 1, np.sqrt(np.maximum(variances, 0)), np.nan)


def fluctuation(norms: np.ndarray) -> np.ndarray:
    """Absolute change of the gradient norm since the record before, float64 [n] to [n - 1]."""
    return np.abs(np.diff(norms))


def smoothed_fluctuation(
    run: Run, smooth: str = "cubic", window: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """The curve of ScratchDet's panel (c); the paper does not define it.

    Args:
        run: records.
        smooth: "cubic": least-squares polynomial of degree 3 through ``fluctuation`` over the whole run,
            which looks like the published curves; "window": ``running_std`` of the gradient norm.
        window: steps of the latter.

    Returns:
        Steps and values.

    Raises:
        DataError: too few records; the message says what helps.
    """
    if smooth == "window":
        if len(run.steps) < 2:
            raise DataError(f"{run.title}: a fluctuation needs 2 records, there is 1")
        return run.steps[1:], running_std(run.steps, run.norm, window)[1:]
    steps, values = run.steps[1:], fluctuation(run.norm)
    if len(steps) < 4:
        raise DataError(
            f"{run.title}: a cubic needs 4 points of the fluctuation, so 5 records; there are "
            f"{len(run.steps)}. Take --smooth=window, or record more often (config.landscape.every)"
        )
    return steps, np.polynomial.Polynomial.fit(steps, values, 3)(steps)


def summary(run: Run, curve: np.ndarray, horizon: float) -> dict[str, Any]:
    """One row of the table; see ``COLUMNS``. None for what a run did not record.

    Args:
        run: records.
        curve: its smoothed fluctuation.
        horizon: step up to which it is early.
    """
    early = fluctuation(run.norm)[run.steps[1:] <= horizon]
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {
        "run": run.label,
        "status": run.status if run.diverged is None else f"diverged at step {run.diverged}",
        "last_step": int(run.steps[-1]),
        "final_loss": running_mean(run.loss)[-1],
        "start_fluctuation": curve[0],
        "early_fluctuation": early.mean() if len(early) else None,
        "mean_grad_norm": run.norm.mean(),
    }
    probes = run.probes
    if probes is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a probe of nan alone
            beta = np.nanmax(probes.smoothness, axis=1)
            spread = np.nanmax(probes.loss, axis=1) - np.nanmin(probes.loss, axis=1)
            change, cosine = np.nanmax(probes.change, axis=1), np.nanmin(probes.cosine, axis=1)
            row |= {
                "mean_smoothness": np.nanmean(beta),
                "max_smoothness": np.nanmax(beta),
                "mean_loss_range": np.nanmean(spread),
                "max_loss_range": np.nanmax(spread),
                "mean_grad_change": np.nanmean(change),
                "mean_cosine": np.nanmean(cosine),
                "probes_not_finite": int(np.isnan(probes.loss).any(axis=1).sum()),
            }
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    """Numpy's numbers as Python's, nan as None."""
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    return value


def ordering(rows: Sequence[dict[str, Any]], column: str) -> str:
    """A sentence that ranks the runs by a column, highest first; diverged runs are listed separately."""
    ranked = [r for r in rows if r[column] is not None and not r["status"].startswith("diverged")]
    ranked.sort(key=lambda row: -row[column])
    text = " > ".join(f"{row['run']} ({row[column]:.4g})" for row in ranked) or "no run to rank"
    apart = [row for row in rows if row not in ranked]
    left_out = ", ".join(
        f"{row['run']}: {'no probes' if row[column] is None else row['status']}" for row in apart
    )
    what = ORDERED[column]
    return f"{what[0].upper()}{what[1:]}: {text}{f'; not ranked: {left_out}' if apart else ''}."


def compare(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    labels: Sequence[str] = (),
    smooth: str = "cubic",
    window: int = 0,
    align: bool = False,
) -> list[dict[str, Any]]:
    """Draws and tabulates what runs recorded of their loss surface, and prints the table.

    Args:
        folders: of the runs.
        out: folder for the results; made if it is not there. Older results in it are replaced, which is
            said.
        labels: names of the runs; none: the folders' own.
        smooth: see ``smoothed_fluctuation``.
        window: its steps; 0: 1,000, or a tenth of the longest run where that is less.
        align: leave out records that not all runs have, instead of refusing (``on_one_grid``).

    Returns:
        The rows of the table, see ``COLUMNS``.

    Raises:
        ConfigError: not one label for each run, two alike, or ``out`` is a file.
        DataError: a run has no records, too few, or other steps than the rest.
    """
    out = Path(out)
    labels = tuple(labels) or tuple(Path(folder).absolute().name for folder in folders)
    if len(labels) != len(folders):
        raise ConfigError(f"{len(labels)} labels ({', '.join(labels)}) for {len(folders)} runs")
    if len(set(labels)) != len(labels):
        raise ConfigError(f"labels {', '.join(labels)} are not all different; give --labels=…")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; name a folder for the results")
    runs, notes = on_one_grid([read_run(f, x) for f, x in zip(folders, labels)], align)
    last = max(int(run.steps[-1]) for run in runs)
    window = window or max(min(1000, last // 10), 2)
    curves = [smoothed_fluctuation(run, smooth, window) for run in runs]
    horizon = runs[0].steps[0] + (last - runs[0].steps[0]) / 10
    rows = [summary(run, curve, horizon) for run, (_, curve) in zip(runs, curves)]
    sentences = [ordering(rows, "final_loss"), ordering(rows, "start_fluctuation")]
    sentences += [ordering(rows, "mean_grad_norm")]
    if any(run.probes is not None for run in runs):
        sentences += [ordering(rows, "mean_smoothness"), ordering(rows, "mean_loss_range")]

    means = {"cubic": "cubic fit", "window": f"standard deviation over {window} steps"}
    losses = [(run.steps, running_mean(run.loss)) for run in runs]
    out.mkdir(parents=True, exist_ok=True)
    figures = {
        "landscape.png": landscape_figures.trajectories(runs, losses, curves, means[smooth]),
        "probes.png": landscape_figures.probes(runs),
        "modules.png": landscape_figures.modules(runs),
    }
    for name, figure in figures.items():
        if figure is not None:
            _write(out / name, lambda path, figure=figure: figure.savefig(path, dpi=120))
        elif (out / name).exists():
            print(f"{out / name} is of an earlier comparison: these runs have nothing for it")
    table = io.StringIO()
    writer = csv.DictWriter(table, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write(out / "landscape.csv", lambda path: write_text(path, table.getvalue()))
    text = _markdown(rows, [*notes, f"Fluctuation: {means[smooth]}."], sentences)
    _write(out / "landscape.md", lambda path: write_text(path, text))
    print(text)
    return rows


def _write(path: Path, write) -> None:
    told = "replaced" if path.exists() else "wrote"
    write(path)
    print(f"{told} {path}")


def _markdown(rows, notes, sentences) -> str:
    used = [name for name in COLUMNS if any(row[name] is not None for row in rows)]

    def cell(value: Any) -> str:
        if value is None:
            return "–"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    lines = [" | ".join(used), " | ".join("---" for _ in used)]
    lines += [" | ".join(cell(row[name]).replace("|", "\\|") for name in used) for row in rows]
    table = "\n".join(f"| {line} |" for line in lines)
    legend = "\n".join(f"* `{name}`: {COLUMNS[name]}" for name in used[1:])
    return "\n\n".join([table, "\n".join(sentences), "\n".join(notes), legend]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jdet.analysis.landscape",
        description="Draws and tabulates the loss surface that runs recorded (config.landscape).",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a training run")
    parser.add_argument("--out", required=True, help="folder for figures and tables")
    parser.add_argument("--labels", default="", help="names of the runs, comma-separated")
    parser.add_argument(
        "--smooth",
        choices=("cubic", "window"),
        default="cubic",
        help="fluctuation: cubic fit to the change of the gradient norm, or its running deviation",
    )
    parser.add_argument(
        "--window", type=int, default=0, help="steps of --smooth=window; 0: by the run's length"
    )
    parser.add_argument(
        "--align", action="store_true", help="leave out records that not all runs have"
    )
    args = parser.parse_args(argv)
    labels = [label.strip() for label in args.labels.split(",")] if args.labels else []
    if args.window < 0:
        parser.error(f"--window={args.window} is no number of steps")
    return cli.run(
        lambda: compare(
            args.runs,
            args.out,
            labels=labels,
            smooth=args.smooth,
            window=args.window,
            align=args.align,
        ),
        OSError,
    )


if __name__ == "__main__":
    sys.exit(main())
