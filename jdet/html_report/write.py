"""``report.html``: a run on one page that needs nothing but a browser.

The page is made of ``page.html``, ``style.css`` and the scripts beside this file; what it shows is a JSON
object inside of it. A policy in its head lets it load nothing from anywhere, and run these scripts alone.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import shlex
import string
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jdet import build
from jdet.analyse.evaluated import evaluated_config
from jdet.atomic_files import plain, write_text
from jdet.evaluation import image_kind, results
from jdet.evaluation.display import Display
from jdet.html_report import contents, curves, gallery
from jdet.html_report.matching import STEPS, Matched, Totals, match, totals
from jdet.train.folders import PHASES, REPORT, phase_names, run_folder
from jdet.train.workdir import Run, open_run
from jdet.types import ConfigError, DataError, ImageKind, Source

_SCRIPTS = ("base.js", "charts.js", "tables.js", "gallery.js", "script.js")
_IOU = 0.5  # where no analysis says another
_SUSPECTS = 200  # of the labels, listed


def write(
    path: str | os.PathLike[str],
    *,
    phase: str = "",
    source: Source | None = None,
    config: ConfigDict | None = None,
) -> Path:
    """Writes ``report.html`` into the folder of a run, finished or not, evaluated or not.

    That of the last phase that is finished also goes, as that of the whole run, into the folder above.

    Args:
        path: of the folder.
        phase: of a run with phases; "": the last that is finished, or, where none is, that has begun.
        source: the set that the last evaluation was of; None: opened as the report says. Where
            it cannot be opened, the page goes without images and says why.
        config: under which the last evaluation was; None: the run's.

    Returns:
        The file.

    Raises:
        ConfigError: there is no run in the folder, no such phase, or its files cannot be read.
    """
    run = open_run(path, phase)
    page = render(collect(run, source, config or run.config))
    root = run.path.parent
    write_text(run.path / REPORT, page)
    if run.path.name in phase_names(root) and run_folder(root) == run.path:
        write_text(root / REPORT, page)
        return (root if Path(path).expanduser().absolute() == root else run.path) / REPORT
    return run.path / REPORT


def collect(run: Run, source: Source | None, config: ConfigDict) -> dict[str, Any]:
    """All that the page shows, as plain values.

    Args:
        run: whose.
        source: as in ``write``.
        config: as in ``write``.
    """
    folder = run.path
    report, analysis, wrong = contents.evaluation(folder)
    charts, notes = curves.charts(folder)
    iou = analysis.get("iou") or _IOU
    images: dict[str, Any] | None = None
    sums: Totals | None = None
    if report:
        try:
            images, sums = _images(run, source, config, report, analysis, iou)
        except (ConfigError, DataError, OSError) as error:
            notes.append(f"Without images, and without counts by score: {error}")
        if wrong:
            notes.append(wrong)
        elif not analysis:
            notes.append(
                "Error types, confusions, calibration and score thresholds are not known: "
                f"python -m jdet.analyse {shlex.quote(str(folder))} finds them."
            )
        elif analysis.get("step") not in (None, report.get("step")):
            notes.append(
                f"Error types, confusions and thresholds are those of step {analysis['step']}, the other "
                f"numbers those of step {report.get('step')}; python -m jdet.analyse "
                f"{shlex.quote(str(folder))} renews them."
            )
    keys = ("tide", "calibration", "by_size", "slices", "masks")
    return {
        "name": _name(folder),
        "status": run.record.get("status", "not begun"),
        "headline": contents.headline(run, report, sums, iou),
        "notes": notes,
        "iou": iou,
        "metrics": report.get("metrics", {}),
        "protocols": (report.get("settings") or {}).get("protocols", {}),
        "charts": charts,
        "classes": list(run.config.class_names),
        "per_class": contents.per_class(report, analysis),
        "precision_recall": contents.precision_recall(folder, analysis) if report else [],
        **{key: analysis.get(key) for key in keys},
        "confusion": contents.confusion(analysis),
        "suspects": analysis.get("label_suspects", [])[:_SUSPECTS],
        "suspects_total": len(analysis.get("label_suspects", [])),
        "gallery": images,
        "data": contents.data_findings(folder, report),
        "config": contents.settings(run),
        "cost": contents.cost(run, report),
        "versions": contents.versions(run),
    }


def _name(folder: Path) -> str:
    phased = (folder.parent / PHASES).exists()
    return f"{folder.parent.name}, phase {folder.name}" if phased else folder.name


def _images(
    run: Run,
    source: Source | None,
    config: ConfigDict,
    report: dict[str, Any],
    analysis: dict[str, Any],
    iou: float,
) -> tuple[dict[str, Any], Totals]:
    """The gallery, and the counts of all images.

    Raises:
        ConfigError: the data set cannot be opened.
        DataError: it is another than the evaluation was of, or detections are missing.
    """
    if source is None:
        config = image_kind.of_run(evaluated_config(config, report), run.config, run.path)
        _, source = build.sources(config)
    found, _ = results.read(run.path / results.DETECTIONS)
    ids = list(found)
    places = _places(source, {found[id].id: i for i, id in enumerate(ids)})
    matched: list[Matched] = []
    for i, id in enumerate(ids):
        matched.append(match(found[id], source[places[i]], iou))
    sums = totals(matched)
    threshold = sums.best() / STEPS
    suspects = analysis.get("label_suspects", ())
    of_id = {str(id): i for i, id in enumerate(ids)}
    wanted = [of_id[str(one["image"])] for one in suspects if str(one["image"]) in of_id]
    chosen = gallery.choose(matched, threshold, wanted)
    display = Display.of(config, ImageKind.of(source))
    shown = gallery.make(chosen, matched, source, places, display)
    by_name = {one["name"]: place for place, one in enumerate(shown)}
    return {
        "images": shown,
        "total": len(matched),
        "threshold": threshold,
        "objects": sums.objects,
        "found": sums.found.tolist(),
        "false": sums.false.tolist(),
        # Where the image of a suspect label is shown.
        "of_suspect": [
            by_name.get(found[ids[of_id[str(one["image"])]]].id)
            if str(one["image"]) in of_id
            else None
            for one in suspects[:_SUSPECTS]
        ],
    }, sums


def _places(source: Source, wanted: dict[str, int]) -> dict[int, int]:
    """Where the images of an evaluation are in the source.

    Args:
        source: the evaluation set.
        wanted: by name of the image its number in the evaluation.

    Returns:
        By this number the index in the source.

    Raises:
        DataError: it has not all of them.
    """
    names: Iterable[str] = getattr(source, "ids", None) or (
        source[i].id for i in range(len(source))
    )
    places: dict[int, int] = {}
    for place, name in enumerate(names):
        if name in wanted:
            places[wanted[name]] = place
            if len(places) == len(wanted):
                break
    missing = [name for name, number in wanted.items() if number not in places]
    if missing:
        raise DataError(
            f"the evaluation set has no image {missing[0]!r} (and {len(missing) - 1} more) that the last "
            "evaluation was of; evaluate again, by the command of the training with --mode=evaluate"
        )
    return places


def render(data: dict[str, Any]) -> str:
    """The page of what ``collect`` returns."""
    style = _part("style.css")
    script = "(() => {\n" + "\n".join(map(_part, _SCRIPTS)) + "\n})();\n"
    # In a script element, text ends at "</script"; as an escape of JSON "<" means the same.
    held = json.dumps(plain(data), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'"
    )
    text = string.Template(_part("page.html")).substitute(
        policy=html.escape(policy),
        title=html.escape(f"{data['name']} – jdet report"),
        name=html.escape(data["name"]),
        headline=html.escape(data["headline"]),
        style=style,
        script=script,
        data=held,
    )
    # Names of files need not be text.
    return text.encode("utf-8", "replace").decode("utf-8")


def _part(name: str) -> str:
    return resources.files("jdet.html_report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
