"""A profile as tables on the console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SHOWN = 24
"""Modules that the table lists; the rest are one row."""

_MEANING = (
    "bound by: the slower of arithmetic (compute) and traffic with the main memory (memory) at the peaks, "
    "or what devices exchange (links); neither: four times as long as that or longer, as small operations "
    "and slow kernels are. of peak: the time at the peaks over the time taken."
)


def print_report(report: dict[str, Any]) -> None:
    """Prints what ``jdet.profile.profile.profile`` returns."""
    from rich.console import Console

    console = Console(width=None if Console().is_terminal else 118, highlight=False)
    console.print(f"\n[bold]{headline(report)}[/bold]")
    for line in facts(report):
        console.print(line)
    print_rows(console, "kind of operation", report["by_kind"])
    print_rows(console, "pass", report["by_phase"])
    print_rows(console, "module", shortened(report["by_module"], SHOWN))
    print_largest(console, report["largest"])
    console.print(_MEANING)


def headline(report: dict[str, Any]) -> str:
    """What was profiled, in a line."""
    size = "×".join(map(str, report["shape"]))
    what = "training step" if report["what"] == "train" else "detection"
    return (
        f"{what} of {report['images']} × {size} on {report['devices']} × {report['device_kind']}, "
        f"{report['precision']}"
    )


def facts(report: dict[str, Any]) -> list[str]:
    """Time, rate, peaks and bounds of the whole step, a line each."""
    seconds, peaks = report["seconds"], report["peaks"]
    each = f"{1e3 * seconds:,.2f} ms a step, {report['images'] / seconds:,.1f} images/s"
    if report["measured"]:
        idle = report["idle_seconds"] / report["traced_seconds"]
        each += f"; with the profiler {1e3 * report['traced_seconds']:,.2f} ms, {idle:.1%} idle"
        if report["device_kind"] == "cpu":
            each += f", {report['cores_busy']:.2f} cores busy"
    else:
        each = f"at least {each} at most: nothing was run, times are those at the peaks"
    least = report["least_seconds"]
    shares = ", ".join(f"{name} {share:.0%}" for name, share in report["by_bound"].items())
    several = report["devices"] > 1
    whose = ", of all devices" if several else ""
    each_has = " each" if several and not peaks["of_all_devices"] else ""
    return [
        each,
        f"{report['flops'] / 1e9:,.2f} GFLOP, {report['bytes'] / 1e9:,.3f} GB of memory traffic{whose}: at "
        f"the peaks {1e3 * least:,.2f} ms, each operation for itself",
        f"peaks{each_has}: {peaks['flops'] / 1e12:,.3g} TFLOP/s, {peaks['bandwidth'] / 1e9:,.3g} GB/s "
        f"({peaks['source']})",
        f"of the step, bound by: {shares}",
    ]


def shortened(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The first rows, and all others as one."""
    if len(rows) <= count:
        return list(rows)
    rest = rows[count - 1 :]
    added = {key: sum(row[key] for row in rest) for key in _ADDED}
    of_peak = added["least"] / added["seconds"] if added["seconds"] else 0.0
    other = {"name": f"{len(rest)} others", "bound": "", "of_peak": of_peak, **added}
    return [*rows[: count - 1], other]


_ADDED = ("count", "seconds", "share", "flops", "bytes", "least")


def print_rows(console: Any, title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Prints a table of rows."""
    heads = ("ms", "share", "GFLOP", "GB", "of peak", "bound by", "instructions")
    table = _table(title, heads)
    for row in rows:
        table.add_row(row["name"], *_numbers(row), f"{row['count'] or ''}")
    console.print(table)


def print_largest(console: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Prints single instructions, the longest first."""
    heads = ("ms", "share", "GFLOP", "GB", "of peak", "bound by")
    table = _table("instruction", heads, "kind", "module")
    for row in rows[:12]:
        table.add_row(row["name"], *_numbers(row), row["kind"], row["module"])
    console.print(table)


def _numbers(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{1e3 * row['seconds']:,.3f}",
        f"{row['share']:.1%}",
        f"{row['flops'] / 1e9:,.3f}" if row["flops"] else "",
        f"{row['bytes'] / 1e9:,.4f}" if row["bytes"] else "",
        f"{row['of_peak']:.0%}" if row["least"] and row["seconds"] else "",
        row["bound"],
    )


def _table(title: str, heads: Sequence[str], *more: str) -> Any:
    from rich.table import Column, Table

    right = [Column(head, justify="right", no_wrap=True) for head in heads]
    return Table(Column(title, overflow="fold"), *right, *map(Column, more), box=None)
