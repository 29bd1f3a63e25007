"""Merges what several runs found in the same images: an ensemble of their detections.

    python -m jdet.evaluation.ensemble RUN RUN … --out=DIR

takes the ``detections.json`` that the last evaluation of each run left (``--tta``: that of multi-scale
testing), or any such file with its ``images.json`` beside it, and writes ``DIR/detections.json``,
``DIR/images.json`` and ``DIR/report.json``, with the metrics of the first run's config on its evaluation
data.

The detections of an image are put together and merged class by class, by box voting or NMS
(``jdet.ops.voting``), as the passes of multi-scale testing are. Of masks, those of a cluster vote pixel by
pixel with the scores of their boxes; by NMS the best box keeps its own.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from jdet import build, cli
from jdet.evaluation import report
from jdet.evaluation.evaluate import MULTI_SCALE_DETECTIONS, make_evaluators
from jdet.evaluation.gather import Evaluator
from jdet.evaluation.masks import majority
from jdet.evaluation.results import (
    DETECTIONS,
    IMAGES,
    read,
    to_coco_json,
    write_detections,
    write_index,
)
from jdet.ops import voting
from jdet.train.workdir import CONFIG, open_run
from jdet.types import ConfigError, ImageDetections

BATCH = 64
"""Images that are merged at a time."""

Location = str | os.PathLike[str]


def merge(
    parts: Sequence[Mapping[int | str, ImageDetections]],
    *,
    kind: str = "voting",
    iou_threshold: float = 0.5,
    max_detections: int = 0,
) -> dict[int | str, ImageDetections]:
    """One set of detections from those of several runs.

    Args:
        parts: of each run, by image id; all have the same images.
        kind: one of ``voting.KINDS``.
        iou_threshold: overlap from which boxes of a class are one.
        max_detections: of an image, at most; 0: as many as a run found in one.

    Returns:
        By image id, best first.
    """
    ids = list(parts[0])
    # Masks of some runs alone would be missing from what the others found.
    masked = all(
        one.masks is not None for part in parts for one in part.values() if len(one.scores)
    )
    keep = max_detections or max(
        (len(one.scores) for part in parts for one in part.values()), default=0
    )
    most = max((sum(len(part[id].scores) for part in parts) for id in ids), default=0)
    program = jax.jit(
        functools.partial(
            voting.merge_traced, kind=kind, keep=max(keep, 1), iou_threshold=iou_threshold
        )
    )
    found = {}
    for first in range(0, len(ids), BATCH):
        some = ids[first : first + BATCH]
        boxes = np.zeros((BATCH, most, 4), np.float32)
        scores = np.zeros((BATCH, most), np.float32)
        labels = np.zeros((BATCH, most), np.int32)
        for row, id in enumerate(some):
            n = sum(len(part[id].scores) for part in parts)
            for padded, field in ((boxes, "boxes"), (scores, "scores"), (labels, "labels")):
                padded[row, :n] = np.concatenate([getattr(part[id], field) for part in parts])
        merged = jax.tree.map(np.asarray, program(boxes, scores, labels, scores > 0))
        for row, id in enumerate(some):
            kept = merged.detections.valid[row]
            image = ImageDetections(
                id=parts[0][id].id,
                boxes=merged.detections.boxes[row][kept],
                scores=merged.detections.scores[row][kept],
                labels=merged.detections.labels[row][kept],
            )
            if masked:
                every = [mask for part in parts for mask in part[id].masks or ()]
                sources, owners = merged.source[row][kept], merged.owner[row][: len(every)]
                masks = _masks(every, scores[row], sources, owners, kind)
                image = image._replace(masks=masks)
            found[id] = image
    return found


def _masks(
    masks: Sequence[Any], scores: np.ndarray, sources: np.ndarray, owners: np.ndarray, kind: str
) -> tuple[Any, ...]:
    """The masks of merged boxes; ``sources`` and ``owners`` as in ``voting.Merged``."""
    merged = []
    for best in sources.tolist():
        members = np.flatnonzero(owners == best).tolist()
        if kind == "nms" or len(members) < 2:
            merged.append(masks[best])
        else:
            merged.append(majority([masks[i] for i in members], scores[members]))
    return tuple(merged)


def ensemble(
    runs: Sequence[Location],
    out: Location,
    *,
    kind: str = "voting",
    iou_threshold: float = 0.5,
    max_detections: int = 0,
    tta: bool = False,
) -> dict[str, float]:
    """Merges the detections of runs, writes them, and evaluates them where a run says on what.

    Args:
        runs: folders of runs, or result lists.
        out: folder for the files, made if missing.
        kind: as in ``merge``.
        iou_threshold: as in ``merge``.
        max_detections: as in ``merge``.
        tta: of runs take what multi-scale testing found.

    Returns:
        Metrics of the first argument that belongs to a run; empty where none does.

    Raises:
        ConfigError: a setting is out of range, ``out`` is one of the runs, or there is one file only.
        DataError: files are missing, or are of different images or classes.
    """
    if len(runs) < 2:
        raise ConfigError(f"an ensemble takes two runs at least, and this is {len(runs)}")
    if not 0 < iou_threshold <= 1:
        raise ConfigError(f"--iou={iou_threshold} must be above 0 and at most 1")
    if max_detections < 0:
        raise ConfigError(f"--max_detections={max_detections} must be at least 0")
    name = MULTI_SCALE_DETECTIONS if tta else DETECTIONS
    files = [_file(Path(run).expanduser(), name) for run in runs]
    out = Path(out).expanduser()
    if any(out.resolve() == file.parent.resolve() for file in files):
        raise ConfigError(f"--out={out} is one of the runs; name another folder")
    parts, indices = zip(*(read(file) for file in files), strict=True)
    for file, index in zip(files[1:], indices[1:], strict=True):
        _same(files[0], indices[0], file, index)
    merged = merge(parts, kind=kind, iou_threshold=iou_threshold, max_detections=max_detections)
    categories = indices[0]["categories"]
    ids = [category["id"] for category in categories]
    names = tuple(category["name"] for category in categories)
    write_index(out, indices[0]["images"], ids, names)
    write_detections(
        out / DETECTIONS, (to_coco_json(image, id, ids) for id, image in merged.items())
    )
    settings = {
        "runs": list(map(str, files)),
        "merge": kind,
        "iou_threshold": iou_threshold,
        "max_detections": max_detections,
    }
    belongs = [file.parent for file in files if (file.parent / CONFIG).is_file()]
    metrics, evaluators = evaluate(belongs[0], merged, names) if belongs else ({}, [])
    report.write_report(out / "report.json", step=0, metrics=metrics, settings=settings)
    if metrics:
        report.print_table(metrics, names, report.per_class(evaluators))
    return metrics


def evaluate(
    run: Path, found: Mapping[int | str, ImageDetections], class_names: Sequence[str]
) -> tuple[dict[str, float], list[Evaluator]]:
    """Evaluates detections as a run evaluates its own.

    Args:
        run: folder whose config names data and metrics.
        found: detections by image id.
        class_names: of their labels.

    Returns:
        The metrics and the evaluators.

    Raises:
        ConfigError: there is no run, or its evaluation data has other classes, or lacks images.
        DataError: its evaluation data cannot be read.
    """
    config = open_run(run).config
    _, source = build.sources(config)
    if tuple(source.class_names) != tuple(class_names):
        raise ConfigError(
            f"the evaluation data of {run} has the classes {', '.join(source.class_names)}, and the "
            f"detections are of {', '.join(class_names)}"
        )
    evaluators = make_evaluators(config.eval.metrics, source.class_names, config.eval)
    if any(image.masks is None for image in found.values() if len(image.scores)):
        without = [one for one in evaluators if "masks" not in getattr(one, "needs", ())]
        if len(without) < len(evaluators):
            logging.warning("Not all detections have masks: boxes alone are evaluated.")
            evaluators = without or make_evaluators(("coco",), source.class_names, config.eval)
    waiting = {image.id: image for image in found.values()}
    for index in range(len(source)):
        if not waiting:
            break
        example = source[index]
        if (image := waiting.pop(example.id, None)) is not None:
            for evaluator in evaluators:
                evaluator.add(image, example)
    if waiting:
        some = ", ".join(list(waiting)[:5])
        raise ConfigError(
            f"the evaluation data of {run} lacks {len(waiting)} of the images ({some} …); the detections "
            "are of other data"
        )
    metrics: dict[str, float] = {}
    for evaluator in evaluators:
        metrics.update(evaluator.result())
    return metrics, evaluators


def _file(path: Path, name: str) -> Path:
    """The result list that an argument means; of a run in phases that of the last one."""
    if path.is_file() or (path / name).is_file():
        return path if path.is_file() else path / name
    with contextlib.suppress(ConfigError):
        return open_run(path).path / name
    return path / name


def _same(first: Path, ours: Mapping[str, Any], file: Path, theirs: Mapping[str, Any]) -> None:
    """Refuses files of different images or classes."""
    for key, what in (("categories", "classes"), ("images", "images")):
        a, b = (
            {one["id"]: one.get("name") or one["file_name"] for one in index[key]}
            for index in (ours, theirs)
        )
        if a != b:
            odd = [id for id in {**a, **b} if a.get(id) != b.get(id)]
            raise ConfigError(
                f"{file} is of other {what} than {first}: {len(odd)} differ, such as id {odd[0]!r}, "
                f"{a.get(odd[0])!r} there and {b.get(odd[0])!r} here (see {IMAGES}); evaluate the runs on "
                "the same data"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jdet.evaluation.ensemble",
        description="Merges what several runs found in the same images, and evaluates it.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folders of runs, or result lists")
    parser.add_argument("--out", required=True, help="folder for the merged files")
    parser.add_argument(
        "--merge", choices=voting.KINDS, default="voting", help="of boxes of a class"
    )
    parser.add_argument("--iou", type=float, default=0.5, help="overlap from which boxes are one")
    parser.add_argument(
        "--max_detections", type=int, default=0, help="of an image; 0: the most of a run"
    )
    parser.add_argument("--tta", action="store_true", help="what multi-scale testing found")
    args = parser.parse_args(argv)

    def work() -> None:
        options = dict(iou_threshold=args.iou, max_detections=args.max_detections, tta=args.tta)
        ensemble(args.runs, args.out, kind=args.merge, **options)

    return cli.run(work, OSError)


if __name__ == "__main__":
    sys.exit(main())
