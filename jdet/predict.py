"""Finds objects in images with a trained run.

    python -m jdet.predict --workdir=RUN --images=FOLDER_OR_FILES --out=DIR

writes ``DIR/images/`` (every image with boxes, labels and scores), ``DIR/detections.json`` (a
COCO result list, with file and category names) and ``DIR/images.json`` (the images and categories
it refers to, in COCO's form, and the files that could not be read). Image ids are the files' names as
numbers where all names are numbers, as in COCO, else they count the files from 1. For programs:

    for found in predict("RUN", ["a.jpg", "folder"]):
        print(found.id, found.boxes, found.scores, found.labels)

Images are turned upright as their EXIF tag says; boxes refer to the upright image.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from absl import logging

from jdet import cli
from jdet.data.find_images import SUFFIXES, ImageFile, find_images, unique_name
from jdet.data.image_io import read_image, write_image
from jdet.evaluation import tta as tta_lib
from jdet.evaluation.drawing import draw_detections
from jdet.evaluation.predictor import Predictor, Prepared, in_order
from jdet.evaluation.results import (
    DETECTIONS,
    image_ids,
    to_coco_json,
    write_detections,
    write_index,
)
from jdet.types import ConfigError, DataError, ImageDetections

_READERS = 2  # threads that decode ahead of the device

OnError = Callable[[str, Exception], None]


def predict(
    workdir: str | os.PathLike[str],
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    step: int | str = "latest",
    score: float = 0.3,
    batch_size: int = 8,
    tta: str | Mapping[str, Any] = "none",
    precise_bn: bool | None = None,
    on_error: OnError | None = None,
) -> Iterator[ImageDetections]:
    """Detects in files and folders, for notebooks and programs.

    Args:
        workdir: folder of a run.
        images: files, folders (searched recursively), glob patterns, or several of them.
        step: of the checkpoint; a number, "latest" or "best".
        score: lowest score to report; the run's own threshold (``config.model.score_threshold``)
            stays the floor.
        batch_size: images per call of the network.
        tta: multi-scale testing, as in ``Predictor``.
        precise_bn: statistics of batch norms, as in ``Predictor``.
        on_error: told name and error of each image that cannot be read; None logs a warning.

    Returns:
        An iterator in the order of the files; ``id`` is the file's name below its folder, boxes are
        in pixels of the upright image.

    Raises:
        ConfigError: there is no run in ``workdir``, or ``tta`` or ``precise_bn`` is invalid.
        CheckpointError: there is no such checkpoint.
        DataError: ``precise_bn`` is asked for, and the training data cannot be read.
    """
    predictor = Predictor(workdir, step=step, batch_size=batch_size, tta=tta, precise_bn=precise_bn)
    found = detect_files(predictor, find_images(images), score, on_error or _log_error)
    return in_order((number, detections) for number, _, _, detections in found)


def _log_error(name: str, error: Exception) -> None:
    logging.warning("%s: %s", name, error)


def detect_files(
    predictor: Predictor, files: Iterable[ImageFile], score: float, on_error: OnError
) -> Iterator[tuple[int, ImageFile, np.ndarray, ImageDetections]]:
    """Reads ahead in threads and detects in batches.

    Args:
        predictor: a loaded run.
        files: what to read.
        score: lowest score to report.
        on_error: told name and error of each file that cannot be read.

    Yields:
        Number among the files that could be read, file, upright image uint8 [H, W, 3], and its detections;
        in the order in which batches of one shape are full.
    """
    held: dict[int, tuple[ImageFile, np.ndarray]] = {}

    def prepared() -> Iterator[Prepared]:
        reads = _read_ahead(files, predictor.prepare, 2 * predictor.batch_size, on_error)
        for number, (file, image, small) in enumerate(reads):
            held[number] = file, image
            yield small

    for number, found in predictor.detect(prepared()):
        file, image = held.pop(number)
        keep = (found.scores >= score) & (found.boxes[:, :2] < found.boxes[:, 2:]).all(1)
        yield number, file, image, found.select(keep)


def _read_ahead(
    files: Iterable[ImageFile],
    prepare: Callable[[np.ndarray, str], Prepared],
    ahead: int,
    on_error: OnError,
) -> Iterator[tuple[ImageFile, np.ndarray, Prepared]]:
    """Decoded and prepared images in order; what cannot be read is reported and left out."""

    def read(file: ImageFile) -> tuple[np.ndarray, Prepared]:
        image = read_image(file.path, exif=True)
        return image, prepare(image, file.name)

    waiting: deque = deque()
    pool = ThreadPoolExecutor(_READERS)
    try:
        for file in [*files, None]:
            if file is not None:
                waiting.append((file, pool.submit(read, file)))
            while waiting and (file is None or len(waiting) > ahead):
                done, future = waiting.popleft()
                try:
                    image, small = future.result()
                except (DataError, MemoryError) as error:
                    on_error(done.name, error)
                else:
                    yield done, image, small
    finally:
        pool.shutdown(cancel_futures=True)


def write_results(
    predictor: Predictor, files: Sequence[ImageFile], out: Path, score: float
) -> tuple[int, dict[str, str]]:
    """Detects in files and writes images and JSON.

    Args:
        predictor: a loaded run.
        files: what to read.
        out: folder for the results.
        score: lowest score to report.

    Returns:
        How many images were done, and the reason by name for each that was not.
    """
    failed: dict[str, str] = {}

    def on_error(name: str, error: Exception) -> None:
        failed[name] = str(error)
        _say(f"cannot use {name}: {error}", sys.stderr)

    place = {file.name: number for number, file in enumerate(files)}
    ids = image_ids({number: PurePosixPath(name).stem for name, number in place.items()})
    targets = _targets(files)
    images: dict[int, dict[str, Any]] = {}
    records: dict[int, list[dict[str, Any]]] = {}
    for _, file, image, found in detect_files(predictor, files, score, on_error):
        number = place[file.name]
        target = out / "images" / targets[number]
        drawn = draw_detections(image, found, predictor.class_names, score_threshold=score)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_image(target, drawn)
        except (DataError, OSError) as error:
            on_error(file.name, error)
            continue
        height, width = image.shape[:2]
        info = {"id": ids[number], "file_name": file.name}
        images[number] = {**info, "width": width, "height": height}
        records[number] = [
            {**record, "file_name": file.name, "category_name": predictor.class_names[label]}
            for record, label in zip(
                to_coco_json(found, ids[number], predictor.category_ids),
                found.labels,
                strict=True,
            )
        ]
    write_detections(out / DETECTIONS, (records[number] for number in sorted(records)))
    write_index(
        out,
        [images[number] for number in sorted(images)],
        predictor.category_ids,
        predictor.class_names,
        info={
            "description": f"jdet.predict, step {predictor.step}, score >= {score}",
            "precise_bn": predictor.precise_bn,
        },
        failed=[{"file_name": name, "error": error} for name, error in failed.items()],
    )
    count = sum(map(len, records.values()))
    _say(
        f"{len(images)} of {len(files)} images done, {count} objects found, "
        f"{len(failed)} failed; results in {out}"
    )
    return len(images), failed


def _targets(files: Sequence[ImageFile]) -> list[str]:
    """Where the drawn image of each file goes, below the folder of images."""
    taken: set[str] = set()
    targets = []
    for file in files:
        target = PurePosixPath(file.name)
        if target.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            target = target.with_name(f"{target.name}.jpg")
        targets.append(unique_name(target.as_posix(), taken))
    return targets


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 if an image was done, 2 if none was or for a user's mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m jdet.predict", description="Finds objects in images with a trained run."
    )
    parser.add_argument("--workdir", required=True, help="folder of the training run")
    parser.add_argument(
        "--images",
        required=True,
        action="extend",
        nargs="+",
        help="folders (searched recursively), files, or patterns; several, or comma-separated",
    )
    parser.add_argument("--out", required=True, help="folder for images and JSON")
    parser.add_argument("--step", default="latest", help="checkpoint: a number, latest or best")
    parser.add_argument("--score", type=float, default=0.3, help="lowest score to report")
    parser.add_argument("--batch_size", "--batch-size", type=int, default=8, help="images per call")
    parser.add_argument(
        "--tta",
        default="none",
        choices=("none", *tta_lib.PRESETS, "run"),
        help="multi-scale testing: a preset, or run for the run's own setting",
    )
    parser.add_argument(
        "--precise_bn",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="measure the statistics of batch norms over the training data, as the run's evaluations do "
        "by config.eval.precise_bn; default: where they do and the data can be read",
    )
    args = parser.parse_args(argv)
    # A comma may belong to a file's name: what exists as it stands is not cut.
    images = [
        part
        for item in args.images
        for part in ([item] if os.path.exists(item) else item.split(","))
        if part
    ]
    out = Path(args.out)

    def work() -> int:
        if not 0 <= args.score <= 1:
            raise ConfigError(f"--score={args.score} must lie in 0 … 1, such as --score=0.3")
        if args.batch_size < 1:
            raise ConfigError(f"--batch_size={args.batch_size} must be at least 1")
        files = find_images(images, exclude=out)
        if not files:
            raise ConfigError(f"no images in {', '.join(images)} (looked for {' '.join(SUFFIXES)})")
        predictor = Predictor(
            args.workdir,
            step=args.step,
            batch_size=args.batch_size,
            tta=args.tta,
            precise_bn=args.precise_bn,
        )
        done, _ = write_results(predictor, files, out, args.score)
        return 0 if done else cli.MISTAKE

    return cli.run(work, OSError)


def _say(text: str, file: Any = None) -> None:
    """Prints, also file names that are not valid text."""
    print(os.fsencode(text).decode("utf-8", "replace"), file=file or sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
