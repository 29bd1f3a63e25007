"""The whole examination of a data set."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jdet.doctor import (
    class_checks,
    duplicates,
    image_checks,
    input_checks,
    label_checks,
    sequences,
    suspects,
)
from jdet.doctor.findings import SEVERITIES, Finding, ordered, to_json
from jdet.doctor.scan import scan
from jdet.doctor.splits import Split

VERSION = 1
"""Of the form of ``doctor.json``."""


class Examination(NamedTuple):
    """What came out.

    Attributes:
        name: of the set, for people.
        config: with what was found of the images.
        splits: that were examined.
        findings: the worst first.
        sizes: objects by class at the network's input (``input_checks.size_table``).
        seconds: that it took.
    """

    name: str
    config: ConfigDict
    splits: list[Split]
    findings: list[Finding]
    sizes: list[dict[str, Any]]
    seconds: float

    def count(self, severity: str) -> int:
        """Findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)


def examine(
    name: str,
    config: ConfigDict,
    splits: Sequence[Split],
    *,
    network: bool = True,
    run: Path | None = None,
    processes: int = 0,
    notify: Callable[[str], None] = print,
) -> Examination:
    """Examines a data set.

    Args:
        name: of the set, for people.
        config: with what was found of the images, as ``splits.of_config`` and ``of_folder`` return it.
        splits: of the set.
        network: the config is one to train: its limits and anchors count too.
        run: folder of a run whose confident detections are held against the labels.
        processes: that read images; 0: as many as there are processors, where it takes long.
        notify: told how far the reading is.

    Raises:
        ConfigError: the detector cannot be built, or the run is of other data.
        DataError: a process that reads was ended from outside.
    """
    started = time.monotonic()
    invalid = config.data.image.invalid
    found = list(suspects.findings(splits, run)) if run else []  # first, as it may be refused
    found += label_checks.findings(splits)
    found += class_checks.findings(splits)
    found += input_checks.findings(splits, config, network)
    pixels = [scan(split, invalid, processes, notify) for split in splits]
    found += image_checks.findings(splits, pixels)
    everything = duplicates.Everything(splits, pixels, invalid)
    found += duplicates.findings(everything)
    found += sequences.findings(everything)
    sizes = input_checks.size_table(splits, config)
    seconds = time.monotonic() - started
    return Examination(name, config, list(splits), ordered(found), sizes, seconds)


def as_json(examination: Examination) -> dict[str, Any]:
    """The examination for programs: what ``doctor.json`` holds."""
    counts = class_checks.class_counts(examination.splits)
    names = examination.splits[0].source.class_names
    return {
        "version": VERSION,
        "name": examination.name,
        "seconds": round(examination.seconds, 1),
        "splits": [
            {
                "name": split.name,
                "trained": split.trained,
                "images": len(split.ids),
                "objects": len(split.objects.labels),
                "classes": dict(zip(names, row.tolist())),
            }
            for split, row in zip(examination.splits, counts)
        ],
        "input": input_checks.setting(examination.config),
        "sizes": examination.sizes,
        "counts": {severity: examination.count(severity) for severity in SEVERITIES},
        "findings": [to_json(finding) for finding in examination.findings],
    }
