"""The report of a pre-flight as tables."""

from __future__ import annotations

from typing import Any

GIB = 2**30


def print_report(report: dict[str, Any]) -> None:
    """Prints what ``jdet.preflight.preflight`` returns."""
    from rich.console import Console

    console = Console(width=None if Console().is_terminal else 110, highlight=False)
    for part in report["topologies"]:
        print_topology(console, report, part)
    if report["weak_scaling"]:
        print_weak_scaling(console, report["weak_scaling"])


def print_topology(console: Any, report: dict[str, Any], part: dict[str, Any]) -> None:
    """Prints one topology: both steps in columns, the collectives, the search."""
    programs, chip = part["programs"], part["chip"]
    kind = chip["name"] if chip else part["device_kind"]
    console.print(
        f"\n[bold]{part['topology']}[/bold]  {part['devices']} × {kind}, "
        f"{report['config']['precision']}, input {'×'.join(map(str, report['shape']))}"
    )
    rows: list[tuple[str, ...]] = [("", *programs)]
    for label, text in _LINES:
        rows.append((label, *map(text, programs.values())))
        if label == "peak":
            capacity = in_bytes(part["memory_of_device"])
            rows.append(("memory of a device", *[capacity for _ in programs]))
    _print_table(console, [row for row in rows if any(row[1:])])
    for name, program in programs.items():
        _print_collectives(console, name, program)
    if "search" in part:
        _print_search(console, part)
    if chip:
        console.print(f"figures of the chip: {chip['source']}")
    else:
        console.print(f"no published figures for {kind!r}: no bound")


def print_weak_scaling(console: Any, parts: list[dict[str, Any]]) -> None:
    """Prints a row per topology; efficiency is relative to the first."""
    console.print("\n[bold]weak scaling[/bold], training step")
    rows: list[tuple[str, ...]] = [
        ("topology", "devices", "batch", "peak", "all-reduces", "MiB", "interconnect")
        + ("img/s a device", "img/s in all", "efficiency")
    ]
    first = None
    for part in parts:
        train = part["programs"]["train"]
        bound = train.get("bound")
        reduces = [row for row in train["collectives"] if row["kind"] == "all-reduce"]
        cells = ["", "", "", ""]
        if bound:
            serial = bound["images_per_second_serial"]
            first = first or serial
            cells = [
                f"{1e3 * bound['interconnect']:.2f} ms",
                f"{bound['images_per_second']:,.0f}",
                f"{bound['images_per_second_all']:,.0f}",
                f"{100 * serial / first:.1f} %",
            ]
        rows.append(
            (
                part["topology"],
                f"{part['devices']}",
                f"{part['batch_size']:,}",
                in_bytes(train["needed"]) + ("" if train["fits"] else " does not fit"),
                f"{sum(row['count'] for row in reduces)}",
                f"{sum(row['bytes'] for row in reduces) / 2**20:.1f}",
                *cells,
            )
        )
    _print_table(console, rows)
    console.print(
        "img/s: bound with perfect overlap; efficiency: without any overlap, against the first row"
    )


def in_bytes(value: float) -> str:
    """Bytes of memory in GiB or MiB; empty for none."""
    if not value:
        return ""
    return f"{value / GIB:.2f} GiB" if value >= GIB / 10 else f"{value / 2**20:.2f} MiB"


def _operations(value: float) -> str:
    return f"{value / 1e12:,.3f} TFLOP" if value >= 1e11 else f"{value / 1e9:,.3f} GFLOP"


def _memory(key: str):
    return lambda program: in_bytes(program["memory"][key]) if program["memory"] else "–"


def _bound(key: str, scale: float, unit: str):
    def text(program: dict[str, Any]) -> str:
        if "bound" not in program:
            return ""
        mark = " ← limit" if program["bound"]["limit"] == key else ""
        return f"{scale * program['bound'][key]:,.2f} {unit}{mark}"

    return text


def _rate(key: str):
    return lambda p: f"{p['bound'][key]:,.0f} img/s" if "bound" in p else ""


def _verdict(program: dict[str, Any]) -> str:
    if program["fits"]:
        return "fits"
    return f"DOES NOT FIT{': needs ' + in_bytes(program['needed']) if program['needed'] else ''}"


_LINES = (
    ("images per device", lambda p: f"{p['images']}"),
    ("arguments", _memory("arguments")),
    ("outputs", _memory("outputs")),
    ("of these in place of arguments", _memory("aliased")),
    ("temporaries", _memory("temporaries")),
    ("code", _memory("code")),
    ("peak", _memory("peak")),
    ("verdict", _verdict),
    ("operations", lambda p: _operations(p["flops"])),
    ("memory traffic", lambda p: f"{p['memory_bytes'] / 1e9:,.3f} GB"),
    (
        "arithmetic intensity",
        lambda p: (
            f"{p['arithmetic_intensity']:,.0f} FLOP/B" if p.get("arithmetic_intensity") else ""
        ),
    ),
    ("time of compute at least", _bound("compute", 1e3, "ms")),
    ("time of memory at least", _bound("memory", 1e3, "ms")),
    ("time of interconnect at least", _bound("interconnect", 1e3, "ms")),
    ("bound of a device", _rate("images_per_second")),
    ("bound of all devices", _rate("images_per_second_all")),
    ("a device without overlap", _rate("images_per_second_serial")),
    ("all-gathers", lambda p: f"{p['all_gathers'] or 'none'}"),
    ("host transfers", lambda p: f"{len(p['host_transfers']) or 'none'}"),
    (
        "compiled in",
        lambda p: (
            "found in the cache"
            if p["cached"]
            else f"{p['seconds']:.0f} s, {p['cpu_seconds']:.0f} s of cores"
        ),
    ),
)


def _print_collectives(console: Any, name: str, program: dict[str, Any]) -> None:
    rows: list[tuple[str, ...]] = [
        (f"{name}: collectives", "for", "devices", "count", "bytes", "largest")
    ]
    for row in program["collectives"]:
        numbers = (f"{row[key]:,}" for key in ("group_size", "count", "bytes", "largest"))
        rows.append((row["kind"], row["purpose"], *numbers))
    if len(rows) > 1:
        _print_table(console, rows)
    else:
        console.print(f"{name}: nothing travels between devices")


def _print_search(console: Any, part: dict[str, Any]) -> None:
    found = part["search"]
    steps = ", ".join(f"{n} {'fits' if ok else 'does not'}" for n, _, ok in found["tried"])
    largest, failing = found["largest"], found["smallest_failing"]
    text = "no batch fits" if largest is None else f"{largest} images per device fit"
    text += f" (batch {largest * part['devices']:,})" if largest else ""
    text += f", {failing} do not" if failing else ", none looked at does not"
    console.print(f"search: {text}; tried {steps}")


def _print_table(console: Any, rows: list[tuple[str, ...]]) -> None:
    from rich.table import Column, Table

    head, *body = rows
    table = Table(
        Column(head[0]), *[Column(title, justify="right") for title in head[1:]], box=None
    )
    for row in body:
        table.add_row(*row)
    console.print(table)
