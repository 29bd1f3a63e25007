"""An examination on the console: what is wrong, a line each, with what to do."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from jdet.doctor.examine import Examination
from jdet.doctor.findings import SEVERITIES, Case, plural

COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def print_examination(examination: Examination, console: Console | None = None) -> None:
    """Prints a line for each finding, the worst first: what was found, an example, what to do."""
    console = console or Console(highlight=False)

    def line(text: str) -> None:
        console.print(text, soft_wrap=True)

    parts = [
        f"{split.name} {plural(len(split.ids), 'image')}, {plural(len(split.objects.labels), 'object')}"
        for split in examination.splits
    ]
    line(escape(f"{examination.name}: {'; '.join(parts)} ({examination.seconds:.0f} s)"))
    for finding in examination.findings:
        examples = [text for case in finding.cases[:1] if (text := described(case))]
        such = f" (such as {examples[0]})" if examples else ""
        line(
            f"[{COLOURS[finding.severity]}]{finding.severity:<8}[/]{escape(finding.title + such)}. "
            f"[dim]{escape(finding.remedy)}[/]"
        )
    counts = [
        plural(count, severity) for severity in SEVERITIES if (count := examination.count(severity))
    ]
    line(", ".join(counts) or "nothing is wrong with these data")


def described(case: Case) -> str:
    """A case in words: its images, and what is said of them."""
    images = " and ".join(f"{place.split}: {place.called}" for place in case.places[:4])
    if len(case.places) > 4:
        images += f" and {len(case.places) - 4} more"
    return f"{images} ({case.note})" if images and case.note else images or case.note
