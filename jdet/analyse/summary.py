"""An analysis as plain text."""

from __future__ import annotations

from collections.abc import Sequence

from jdet.analyse.records import Analysis

WORST = 5
"""Images shown."""


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def rows_as_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for cells in (header, *rows):
        name, *others = zip(cells, widths, strict=True)
        lines.append("  ".join([name[0].ljust(name[1]), *(c.rjust(w) for c, w in others)]).rstrip())
    return [lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]]


def summary(analysis: Analysis) -> str:
    """Tables of classes, sizes, slices and errors, the worst images and the number of suspected labels."""
    rows = []
    for one in analysis.per_class:
        best, at = one["threshold"]["best_f1"], one["threshold"]["at_precision"]
        rows.append(
            [
                one["class"],
                str(one["objects"]),
                *map(_percent, (one["ap"], one["ap50"], one["ap75"])),
                _score(best and best["score"]),
                *(_percent(best and best[key]) for key in ("f1", "precision", "recall")),
                _score(at and at["score"]),
            ]
        )
    header = ["class", "objects", "AP", "AP50", "AP75", "score", "F1", "precision", "recall"]
    lines = rows_as_text([*header, "precise from"], rows)
    parts = [
        [name, str(held["objects"]), _percent(held["ap"]), _percent(held["ap50"])]
        for name, held in analysis.by_size.items()
    ]
    parts += [
        [one["name"], str(one["objects"]), _percent(one["ap"]), _percent(one["ap50"])]
        for one in analysis.slices
    ]
    lines += ["", *rows_as_text(["objects of", "objects", "AP", "AP50"], parts)]
    if analysis.tide is not None:
        errors = [[name, _percent(value)] for name, value in analysis.tide.items()]
        lines += ["", *rows_as_text(["errors (TIDE)", "AP50 lost"], errors)]
    if analysis.calibration is not None:
        lines += ["", f"expected calibration error {_percent(analysis.calibration['ece'])} %"]
    worst = [
        [
            one["file"],
            *(str(one[key]) for key in ("objects", "true_positives", "false_positives", "missed")),
            _percent(one["f1"]),
        ]
        for one in analysis.image_list[:WORST]
    ]
    lines += [
        "",
        *rows_as_text(["worst images", "objects", "right", "wrong", "missed", "F1"], worst),
    ]
    kinds = [one["kind"] for one in analysis.label_suspects]
    counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    lines += ["", f"labels to look at: {counted or 'none'}"]
    return "\n".join(lines)
