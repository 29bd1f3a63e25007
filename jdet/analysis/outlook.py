"""What a run in its course says of its end: the forecast of its AP, and whether it learns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging

from jdet.analysis.learning.check import LearningCheck
from jdet.analysis.price.forecast import predict
from jdet.analysis.price.of_runs import Price, metric_of, sentence
from jdet.atomic_files import write_json
from jdet.train.checks import read_rows
from jdet.train.folders import METRICS, record_of


def tell(workdir: Path, metrics: Mapping[str, float], step: int) -> None:
    """Prints the forecast of an evaluation, and adds it to ``report.json`` with what keeps the run back.

    Process 0 does; others return at once. The group "forecast" has the metric, its expected final value and
    the interval, "learning" the last look at training images (``jdet.analysis.learning``); each is there
    where there is one.

    Args:
        workdir: of the run, which holds the report of this evaluation.
        metrics: of the evaluation.
        step: steps of the evaluated state; looks up to it count.
    """
    path = workdir / "report.json"
    if jax.process_index() != 0 or not path.exists():
        return
    more: dict[str, Any] = {}
    name, record = metric_of(metrics), record_of(workdir)
    steps, ahead = int(record.get("steps") or 0), None
    if name and steps and record.get("status") != "completed":
        ahead = predict(step / steps, float(metrics[name]))
    if ahead is not None:
        said = sentence(Price("", 0, name, step, steps, float(metrics[name]), ahead))
        logging.info("%s", said)
        more["forecast"] = {"metric": name, **ahead._asdict(), "said": said}
    looks = [
        row
        for row in read_rows(workdir / METRICS, step, events=True)
        if row["event"] == LearningCheck.name
    ]
    if looks:
        more["learning"] = looks[-1]
    if more:
        write_json(path, {**json.loads(path.read_text()), **more})
