"""What lies in the folder of a run, and which folder that is where a run has phases.

A run with phases has a folder for each, inside of which is all that a run without phases has, and beside
them ``phases.json``: their names in order, and what became of each.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jdet.config import check_phase, load
from jdet.train.checkpoints import select
from jdet.types import ConfigError

CONFIG, RUN, METRICS = "config.json", "run.json", "metrics.jsonl"
LANDSCAPE = "landscape.jsonl"
LOGGERS = "loggers.json"
"""By tracker the id under which it knows the run (``jdet.train.loggers``)."""
REPORT = "report.html"
PHASES = "phases.json"
CURVES = "curves.png"
ANALYSIS = "analysis.json"
"""Where the detector of the last evaluation fails (``jdet.analyse.records``)."""
CERTIFICATE = "certificate.json"
"""What its weights were made from (``jdet.certify``); the leaves and the model card lie beside it."""
EVALUATION = "evaluation_curves.json"
"""What the evaluators' ``curves`` return, with the step."""

OWN = (
    CONFIG,
    RUN,
    METRICS,
    LANDSCAPE,
    select.FOLDER,
    "detections",
    "detections.json",
    "detections_tta.json",
    "images.json",
    "image_statistics.json",
    "defects.txt",
    EVALUATION,
    ANALYSIS,
    "report.json",
    REPORT,
    LOGGERS,
    "wandb",
    CURVES,
    CERTIFICATE,
    "certificate.leaves.jsonl",
    "certificate.md",
    "events.out.tfevents.*",
)
"""What a run puts into its folder, and all that ``overwrite`` removes."""


def stored_config(folder: Path) -> ConfigDict | None:
    """The config of the run that a folder holds; None where it holds none that can be read."""
    try:
        return load(folder / CONFIG)
    except (ConfigError, OSError):
        return None  # what is wrong with it is said where the run is opened


def phase_names(path: Path) -> tuple[str, ...]:
    """Names of the phases whose folders ``path`` holds, in their order; none where it is no such folder.

    Raises:
        ConfigError: its file of phases cannot be read.
    """
    file = path / PHASES
    if not file.exists():
        return ()
    held = read_json(file, "put back a copy, or discard the run with --overwrite")
    try:
        return tuple(phase["name"] for phase in held["phases"])
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{file} lists no phases; put back a copy, or discard the run with --overwrite"
        ) from error


def run_folder(path: str | os.PathLike[str], phase: str = "") -> Path:
    """The folder of a run: ``path`` itself or, where it holds phases, that of one of them.

    Args:
        path: folder of a run, with or without phases.
        phase: name of the phase; "": the last that is finished, or, where none is, that has begun.

    Raises:
        ConfigError: there is no such phase.
    """
    path = Path(path).expanduser().absolute()
    names = phase_names(path)
    if not names:
        if phase:
            raise ConfigError(f"--phase={phase}: the run in {path} has no phases; leave it out")
        return path
    check_phase(phase, dict.fromkeys(names))
    if phase:
        return path / phase
    begun = [name for name in names if (path / name / CONFIG).exists()]
    done = [name for name in begun if record_of(path / name).get("status") == "completed"]
    return path / (done or begun or names)[-1]


def record_of(path: Path) -> dict[str, Any]:
    """What ``run.json`` says of the run in a folder; empty where it has not begun to train.

    Raises:
        ConfigError: it cannot be read.
    """
    file = path / RUN
    return read_json(file, "put back a copy") if file.exists() else {}


def discard(path: Path) -> None:
    """Removes what a run, or every phase of one, has put into its folder.

    Where the file of phases is damaged, the folders in it that hold a run are its phases.
    """
    try:
        names = phase_names(path)
    except ConfigError:
        names = tuple(
            run.parent.name for run in path.glob(f"*/{RUN}") if run.with_name(CONFIG).exists()
        )
    for name in names:
        discard(path / name)
        for lock in (path / name).glob(".lock*"):
            lock.unlink()
        with contextlib.suppress(OSError):  # it is not there, or holds something of somebody else's
            (path / name).rmdir()
    # What makes the folder known as a run goes last.
    for pattern in (*OWN[1:], PHASES, CONFIG):
        for old in path.glob(pattern):
            shutil.rmtree(old) if old.is_dir() else old.unlink()


def remove_views(path: Path) -> None:
    """Removes the analysis and the page of a run's last evaluation, and the page's copy above a phase."""
    (path / ANALYSIS).unlink(missing_ok=True)
    page, above = path / REPORT, path.parent / REPORT
    if not page.exists():
        return
    copied = (path.parent / PHASES).exists() and above.exists()
    if copied and above.read_bytes() == page.read_bytes():
        above.unlink()
    page.unlink()


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a file of a run.

    Raises:
        ConfigError: it cannot be read; ends with ``remedy``.
    """
    try:
        held = json.loads(path.read_text())
        if not isinstance(held, dict):
            raise ValueError("it has no keys")
        return held
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); {remedy}") from error
