"""``analysis.json``: where a detector fails and which score thresholds to use, beside ``report.json``.

The file is one JSON object whose keys are the fields of ``Analysis``; what they hold is plain JSON. A
number that has no ground truth to stand on is null: nothing is made up for a class without objects.
"""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from jdet.atomic_files import write_json
from jdet.train.folders import ANALYSIS as FILE
from jdet.types import DataError

VERSION = 1

ERRORS = ("classification", "localisation", "both", "duplicate", "background", "missed")
"""TIDE's error types (Bolya et al., 2020, section 2.2)."""

SIZES = ("small", "medium", "large")
"""COCO's: areas below 32², below 96² and above, in square pixels of the original image."""

SUSPECTS = ("unlabelled", "wrong_class", "badly_placed", "nothing_there")
"""What may be wrong with a label, see ``jdet.analyse.suspects``."""


class BestF1(TypedDict):
    """The score at and above which detections have the best F1, and what they are worth there."""

    score: float
    precision: float
    recall: float
    f1: float


class AtPrecision(TypedDict):
    """The lowest score at and above which ``wanted`` of the detections are right."""

    wanted: float
    score: float
    precision: float
    recall: float


class Thresholds(TypedDict):
    """Null: the class has no objects, or its detections never reach the precision."""

    best_f1: BestF1 | None
    at_precision: AtPrecision | None


OfClass = TypedDict(
    "OfClass",
    {
        "class": str,
        "images": int,
        "objects": int,
        "ap": float | None,
        "ap50": float | None,
        "ap75": float | None,
        "mask_ap": float | None,
        "threshold": Thresholds,
    },
)
"""One class: images that hold it, its objects, COCO's AP of boxes and, where there are masks, of masks."""

Suspect = TypedDict(
    "Suspect",
    {
        "image": int | str,
        "file": str,
        "box": list[float],
        "kind": str,
        "class": str,
        "other": str | None,
        "score": float,
    },
)
"""A label that a confident detection contradicts.

``kind`` is one of ``SUSPECTS``; ``box`` (x1 y1 x2 y2, original pixels) and ``class`` are those of the
label, of an unlabelled object those of the detection; ``other`` is the class that was found in the
label's place, null unless the kind is "wrong_class".
"""


class Analysis(NamedTuple):
    """What ``analysis.json`` holds; fields are its keys.

    Attributes:
        iou: overlap from which on a detection is right, everywhere but in ``ap`` and ``ap75``.
        images: how many were evaluated.
        classes: names, in label order.
        per_class: one ``OfClass`` per class, in label order.
        by_size: by ``SIZES`` "objects", "ap" and "ap50".
        pr_curves: by class "recall", "precision" (the best at that recall or above) and "score", lists
            of at most 101 points, up to the recall that is reached. Classes without objects have none.
        tide: by ``ERRORS`` how much AP at ``iou`` would rise without errors of this type.
        confusion: "labels" (the classes, then "background"), "score" of the detections that count, and
            "matrix", objects (rows) by what was found in their place (columns). The last column is what
            was missed, the last row what was found where nothing is. None without objects.
        calibration: "ece", the expected calibration error, and "bins", each with "low", "high", mean
            "score" and "precision" of the detections in it (null in an empty one) and their "count".
            None without objects or where scores are outside of 0 … 1.
        slices: the parts of the set that were asked for: "name", "images", "objects", "ap", "ap50".
        image_list: every image, worst first: "id", "file", "objects", "true_positives",
            "false_positives", "missed" and "f1" at the thresholds of best F1; of a class without one
            at that of all classes, or at 0.3 where no detection of any class is right.
        label_suspects: ``Suspect``, the most confident first.
        masks: "ap", "ap50" and "ap75" of masks; None without masks.
        step: optimiser steps the evaluated weights have taken; None: not known.
        version: of this form of the file.
    """

    iou: float
    images: int
    classes: list[str]
    per_class: list[OfClass]
    by_size: dict[str, dict[str, Any]]
    pr_curves: dict[str, dict[str, list[float]]]
    tide: dict[str, float] | None
    confusion: dict[str, Any] | None
    calibration: dict[str, Any] | None
    slices: list[dict[str, Any]]
    image_list: list[dict[str, Any]]
    label_suspects: list[Suspect]
    masks: dict[str, float | None] | None = None
    step: int | None = None
    version: int = VERSION


def write(folder: Path, analysis: Analysis) -> None:
    """Writes ``analysis.json`` into the folder of a run, whole or not at all."""
    write_json(folder / FILE, analysis._asdict())


def read(folder: Path) -> Analysis | None:
    """Reads ``analysis.json`` from the folder of a run.

    Returns:
        What it holds; None where the run has none, for its evaluation is older or was not analysed.

    Raises:
        DataError: the file cannot be read or is not of this form; the message says how to renew it.
    """
    path = folder / FILE
    remedy = f"renew it: python -m jdet.analyse {shlex.quote(str(folder))}"
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if held["version"] != VERSION:
            raise DataError(f"{path} has version {held['version']}, not {VERSION}; {remedy}")
        return Analysis(**held)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be used ({error!r}); {remedy}") from error


def number(value: float) -> float | None:
    """A metric as the file has it: None where it is not defined (nan, or -1 as in pycocotools)."""
    value = float(value)
    return value if math.isfinite(value) and value > -1 else None
