"""The last evaluation of a run, read from its files and its data set."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jdet import build
from jdet.analyse.scored import ScoredImage
from jdet.evaluation import results
from jdet.train.workdir import Run, open_run
from jdet.types import ConfigError, DataError, Source


class EvaluatedRun(NamedTuple):
    """What an evaluation found, and the objects there were.

    Attributes:
        path: folder of the run.
        class_names: K names.
        images: in the order of ``images.json``.
        step: optimiser steps the evaluated weights have taken; None: not known.
        config: of the run, with the evaluation set that was evaluated.
        annotation_file: of the evaluation set, where COCO's form has one.
    """

    path: Path
    class_names: tuple[str, ...]
    images: tuple[ScoredImage, ...]
    step: int | None
    config: ConfigDict
    annotation_file: str | None


def read_run(path: str | os.PathLike[str], phase: str = "") -> EvaluatedRun:
    """Reads a run's last evaluation, and opens the data set it was of.

    Args:
        path: folder of the run.
        phase: as in ``open_run``.

    Raises:
        ConfigError: there is no such run, or it was not evaluated.
        DataError: the data set cannot be read, is not the one that was evaluated, or a file is damaged.
    """
    run = open_run(path, phase)
    report = report_of(run)
    config = evaluated_config(run.config, report)
    _, source = build.sources(config)
    images = scored_images(run.path, source)
    group = config.data.train if config.data.holdout else config.data.eval
    return EvaluatedRun(
        path=run.path,
        class_names=tuple(source.class_names),
        images=images,
        step=report.get("step"),
        config=config,
        annotation_file=group.get("annotation_file", None),
    )


def report_of(run: Run) -> dict[str, Any]:
    """``report.json`` of a run.

    Raises:
        ConfigError: it is not there, and neither are detections.
        DataError: it is damaged.
    """
    path = run.path / "report.json"
    missing = [
        name
        for name in (path.name, results.DETECTIONS, results.IMAGES)
        if not (run.path / name).exists()
    ]
    if missing:
        raise ConfigError(
            f"{run.path} has no {' and no '.join(missing)}: the run was not evaluated yet; do so: "
            f"{_evaluate(run.path)}"
        )
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); evaluate again: {_evaluate(run.path)}"
        ) from error


def _evaluate(folder: Path) -> str:
    return f"python -c {shlex.quote(f'from jdet import run; run.evaluate({str(folder)!r})')}"


def evaluated_config(config: ConfigDict, report: Mapping[str, Any]) -> ConfigDict:
    """The run's config with the evaluation set that the report names, which may be another."""
    held = report.get("settings", {}).get("data")
    if not held or config.data.holdout:
        return config
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.data.eval = ConfigDict(held)
    return config


def scored_images(folder: Path, source: Source) -> tuple[ScoredImage, ...]:
    """Every image that ``detections.json`` and ``images.json`` of a run are of, with its objects.

    Args:
        folder: of the run.
        source: the set that was evaluated.

    Raises:
        DataError: the data set lacks an image or has other classes, or a file is damaged.
    """
    found, index = results.read(folder / results.DETECTIONS)
    classes = [category["name"] for category in index["categories"]]
    if list(source.class_names) != classes:
        raise DataError(
            f"{folder / results.IMAGES} has the classes {', '.join(classes)}, the evaluation set "
            f"{', '.join(source.class_names)}; evaluate the run again: {_evaluate(folder)}"
        )
    waiting = {one.id: (id, one) for id, one in found.items()}
    names = getattr(source, "ids", None)
    images = {}
    for index in range(len(source)):
        if names is not None and names[index] not in waiting:
            continue
        example = source[index]
        if example.id in waiting:
            id, one = waiting[example.id]
            images[example.id] = ScoredImage.of(one, example, id)
    if missing := [name for name in waiting if name not in images]:
        raise DataError(
            f"{len(missing)} of {len(waiting)} evaluated images are not in the evaluation set any more "
            f"({', '.join(missing[:3])} …); give the set back, or evaluate again: {_evaluate(folder)}"
        )
    return tuple(images[name] for name in waiting)
