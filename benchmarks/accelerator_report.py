"""The results of ``benchmarks/accelerator.sh`` as Markdown.

    python -m benchmarks.accelerator_report FOLDER

It imports the standard library only and takes what there is: every part of the script wrote lines of JSON,
or a reason why not.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

RECORD, RUNG = 306, 200
"""Images a second of one H200 that are published for RetinaNet on ResNeXt-50 with two frozen stages and
frozen norms (bfloat16, 800×800), and what is to be reached first with nothing frozen."""


LATE = "no time left"
"""Status of a part that was not begun."""


class Part(NamedTuple):
    """A process of the script: its name, how long it ran, and "0" or why it gave nothing."""

    name: str
    seconds: int
    status: str


def read(folder):
    """Parts in order, and the lines of JSON by part."""
    rows = (line.split("\t") for line in (folder / "parts.tsv").read_text().splitlines())
    parts = [Part(name, int(seconds), status) for name, seconds, status in rows]
    return parts, {part.name: lines(folder / f"{part.name}.jsonl") for part in parts}


def lines(path):
    """Objects of a file with a JSON object on some of its lines; none where there is no such file."""
    found = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:  # a part that was stopped while it wrote
                continue
    return found


def models(results, what):
    """Results of a benchmark of models, one for each case: the one beside the peer, or else the first."""
    found = {}
    for name, rows in results.items():
        for row in rows:
            if row.get("what") == what and "ms" in row and name != "record":
                key = row["model"], row["precision"], row["batch"], row["size"]
                if key not in found or "peer" in row or "peer_error" in row:
                    found[key] = row
    return list(found.values())


COLUMNS = ("model", "precision", "batch × size", "ms", "images/s", "peak MiB", "GFLOP", "GB",
           "at the peaks, ms", "of it", "bound by", "peer ms", "peer images/s", "ratio")  # fmt: skip


def model_rows(found):
    """Cells of results of models."""
    for row in found:
        bound = ("", "", "", "", "")
        if "bound_ms" in row:
            bound = (
                f"{row['gflop']:,.1f}",
                f"{row['gbytes']:.2f}",
                f"{row['bound_ms']:.2f} ({row['each_ms']:.2f})",
                f"{row['of_bound']:.0%}",
                row["bound"],
            )
        peer = (row.get("peer_error", "–"), "", "")
        if "peer" in row:
            peer = (
                f"{row['peer_ms']:.2f}",
                f"{row['peer_images_per_second']:.1f}",
                f"{row['times_peer']:.2f}",
            )
        precision = {"float32": "float32 (TF32)"}.get(row["precision"], row["precision"])
        shape = f"{row['batch']}×{row['size']}²"
        ours = f"{row['ms']:.2f}", f"{row['images_per_second']:.1f}", str(row["peak_mib"])
        yield (row["model"], precision, shape, *ours, *bound, *peer)


def table(columns, rows):
    """Lines of a Markdown table."""
    head = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    return [*head, *("| " + " | ".join(row) + " |" for row in rows)]


def record(rows):
    """RetinaNet-R50 beside the published rate."""
    for row in rows:
        if rate := row.get("images_per_second"):
            case = f"{row['batch']} × {row['size']}² in {row['precision']}"
            yield (
                f"RetinaNet-R50, {case}, nothing frozen: **{rate:.0f} images/s**, {rate / RUNG:.0%} of "
                f"{RUNG}, {rate / RECORD:.0%} of the {RECORD} published for one H200; "
                f"{row['of_bound']:.0%} of what its peaks allow, bound by {row['bound']}."
            )


def operations(results):
    """RoIAlign, RoIPool and NMS."""
    for row in [*results.get("operations_roi_align", ()), *results.get("operations_nms", ())]:
        ours = row.get("ms", row.get("both_ms"))
        theirs = row.get("peer_ms", row.get("peer_forward_ms", 0) + row.get("peer_backward_ms", 0))
        size = f"{row['rois']} RoIs" if "rois" in row else f"{row['classes']} × {row['candidates']}"
        peer = (f"{theirs:.2f}", f"{row['times_peer']:.2f}") if theirs else ("–", "")
        yield (row["what"], size, f"{ours:.2f}", *peer)


def input_rate(rows, trained):
    """What the input pipeline delivers, and what training would take of it."""
    core = [r["images_per_second_per_core"] for r in rows if r.get("stage") == "total"]
    best = [r for r in rows if r.get("what") == "summary"]
    for row in best:
        each = f"; {core[0]} a second and core" if core else ""
        yield (
            f"Input: {row['images_per_second']:.0f} images/s of {row['source']} to {row['size']}² with the "
            f"augmentation of SSD on {row['cores']} cores{each}. Photographs and other augmentations take "
            "other times."
        )
    for result in trained if core else ():
        rate = result["images_per_second"]
        case = f"{result['model']}, {result['precision']}"
        yield f"* {case}: {rate:.0f} images/s take {rate / core[0]:.1f} cores"


def report(folder):
    """Lines of the whole."""
    parts, results = read(folder)
    trained, detected = models(results, "train_step"), models(results, "inference")
    yield from ["# On an accelerator", "", "```"]
    yield from (folder / "machine.txt").read_text().splitlines()
    yield from ["```", ""]
    for title, found in (("Training step", trained), ("Inference", detected)):
        yield from [f"## {title}", ""]
        yield from table(COLUMNS, model_rows(found)) if found else ["Nothing was measured."]
        yield ""
    yield "At the peaks: the longer of arithmetic and traffic; in brackets of every instruction, added up."
    yield from ["", "## RetinaNet-R50 beside the record", ""]
    yield from list(record(results.get("record", ()))) or ["Nothing was measured."]
    yield from ["", "## Operations", ""]
    rows = list(operations(results))
    heads = ("operation", "size", "jdet ms", "torchvision ms", "ratio")
    yield from table(heads, rows) if rows else ["Nothing was measured."]
    yield from ["", "## Input", ""]
    yield from list(input_rate(results.get("input", ()), trained)) or ["Nothing was measured."]
    yield from ["", "## Profile", ""]
    profile = folder / "profile.jsonl"
    text = profile.read_text().strip("\n") if profile.is_file() else ""
    yield from ["```", text, "```"] if text else ["Nothing was measured."]
    yield from ["", "## What did not run", ""]
    late = [part.name for part in parts if part.status == LATE]
    if late:
        yield f"* {LATE}: {', '.join(late)}"
    failed = [part for part in parts if part.status not in ("0", LATE)]
    for part in failed:
        why = f"exit status {part.status}" if part.status.isdecimal() else part.status
        yield f"* {part.name}: {why}, after {part.seconds} s{last_line(folder / f'{part.name}.log')}"
    if not failed and not late:
        yield "Everything ran."
    yield ""
    yield f"{len(parts)} parts, {sum(part.seconds for part in parts)} s."


def last_line(path):
    """What a part said last, as the end of a sentence."""
    said = (
        [line.strip() for line in path.read_text().splitlines() if line.strip()]
        if path.is_file()
        else []
    )
    return f": `{said[-1][:200]}`" if said else ""


if __name__ == "__main__":
    print("\n".join(report(Path(sys.argv[1]))))
