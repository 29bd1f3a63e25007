"""The analysis that a training and an evaluation end with."""

from __future__ import annotations

import json
from pathlib import Path

import jax
from absl import logging
from ml_collections import ConfigDict

from jdet.analyse import records
from jdet.analyse.compute import analyse
from jdet.analyse.evaluated import scored_images
from jdet.evaluation.evaluate import needs_masks
from jdet.html_report import write as html_report
from jdet.train.folders import REPORT
from jdet.types import Source


def write_last(folder: Path, config: ConfigDict, source: Source) -> None:
    """Analyses the last evaluation of a run from its files, and writes ``analysis.json``.

    Not where ``config.eval.analyse`` is off, where nothing was evaluated, and where the file is there: an
    evaluation removes that of the one before. What goes wrong is a warning, for the metrics are in their
    files and ``python -m jdet.analyse`` can be asked again.

    Args:
        folder: of the run.
        config: under which the evaluation was.
        source: the evaluation set.
    """
    report = folder / "report.json"
    if not config.eval.analyse or (folder / records.FILE).exists() or not report.exists():
        return
    try:
        step = json.loads(report.read_text(encoding="utf-8")).get("step")
        images = scored_images(folder, source)
        masks = needs_masks(config, source.class_names)
        records.write(folder, analyse(images, source.class_names, step=step, masks=masks))
    except Exception as error:  # of whatever kind
        logging.warning("%s was not written: %r", folder / records.FILE, error)


def explain(workdir: Path, config: ConfigDict, source: Source) -> None:
    """Writes ``analysis.json`` and ``report.html``, on process 0; a run does not end for want of them."""
    if jax.process_index() != 0:
        return
    write_last(workdir, config, source)
    try:
        logging.info("report: %s", html_report.write(workdir, config=config, source=source))
    except Exception as error:  # of whatever kind: the numbers are in their files
        logging.warning("%s was not written: %r", workdir / REPORT, error)
