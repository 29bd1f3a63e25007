"""What an exported file says of itself: classes, thresholds, images, and where the weights come from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jdet.atomic_files import plain
from jdet.data.readers.settings import USUAL, ImageSettings
from jdet.evaluation.predictor import Predictor
from jdet.train.folders import CONFIG
from jdet.train.provenance import versions
from jdet.types import DataError

FORMAT = 1
"""Number of the layout; a reader refuses others."""


def describe(predictor: Predictor, thresholds: np.ndarray, said: str, step: int) -> dict[str, Any]:
    """The manifest of a run, JSON values alone.

    Args:
        predictor: the run.
        thresholds: float64 [K], lowest score to report; infinity: the class is never reported, None in the
            manifest.
        said: where they come from, in words.
        step: of the weights.
    """
    kind = predictor.images.decoder.kind
    tiling = predictor.tiling
    return plain(
        {
            "format": FORMAT,
            "classes": list(predictor.class_names),
            "category_ids": list(predictor.category_ids),
            "thresholds": list(thresholds),
            "thresholds_from": said,
            "image": {
                "channels": kind.channels,
                "colour": kind.colour,
                "dtype": kind.dtype,
                "value_range": list(kind.value_range),
                "files": predictor.images.files,
                "invalid": predictor.values.invalid,
                "reading": _unusual(predictor.images.decoder.settings),
            },
            "resize": {
                "name": predictor.config.resize.name,
                "setting": predictor.resize.test_setting(),
                "shapes": [list(shape) for shape in predictor.resize.shapes],
            },
            "tile": tiling and tiling._asdict(),
            "detector": predictor.config.model.name,
            "run": {
                "folder": predictor.folder.name,
                "step": step,
                "config_sha256": _digest(predictor),
                "precise_bn": predictor.precise_bn,
                "ema": bool(predictor.config.eval.use_ema),
                "made_with": versions(),
            },
        }
    )


def _unusual(settings: ImageSettings) -> str:
    """What ``config.data.image`` says of files that other readers do not do by themselves; "": nothing."""
    fields = ("palette", "alpha", "bands", "high_byte")
    values = {field: getattr(settings, field) for field in fields}
    return ", ".join(f"{k}={v!r}" for k, v in values.items() if v != getattr(USUAL, k))


def _digest(predictor: Predictor) -> str:
    return hashlib.sha256((predictor.folder / CONFIG).read_bytes()).hexdigest()


def check(manifest: Any, name: str) -> None:
    """Refuses what another version wrote.

    Raises:
        DataError: names the file and its format.
    """
    found = manifest.get("format") if isinstance(manifest, Mapping) else None
    if found != FORMAT:
        raise DataError(
            f"{name}: an export of format {found}, this version of jdet reads {FORMAT}; export the run "
            "again, or read it with the version that wrote it"
        )
