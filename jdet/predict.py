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
import contextlib
import os
import re
import shlex
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from absl import logging

from jdet import cli
from jdet.analyse import thresholds
from jdet.data import videos
from jdet.data.find_images import SUFFIXES, ImageFile, expanded, find_images, together
from jdet.data.image_io import write_image
from jdet.evaluation import tta as tta_lib
from jdet.evaluation.drawing import draw_detections
from jdet.evaluation.output_folder import MAKER, OutputFolder, drawn_names
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
    score: float | str = "auto",
    batch_size: int = 8,
    tta: str | Mapping[str, Any] = "none",
    precise_bn: bool | None = None,
    phase: str = "",
    tile: int | None = None,
    tile_overlap: int | None = None,
    on_error: OnError | None = None,
) -> Iterator[ImageDetections]:
    """Detects in files and folders, for notebooks and programs.

    Args:
        workdir: folder of a run.
        images: files, folders (searched recursively), glob patterns, or several of them.
        step: of the checkpoint; a number, "latest" or "best".
        score: lowest score to report: a number; "auto", for each class that of the best F1 in the run's
            last evaluation, 0.3 where that was not measured; or "precision", that from which on as many
            are right as ``jdet.analyse --precision`` wanted (0.9). The run's own threshold
            (``config.model.score_threshold``) stays the floor.
        batch_size: images per call of the network.
        tta: multi-scale testing, as in ``Predictor``.
        precise_bn: statistics of batch norms, as in ``Predictor``.
        phase: of a run with phases, as in ``Predictor``.
        tile: side of tiles, as in ``Predictor``.
        tile_overlap: of tiles, as in ``Predictor``.
        on_error: told name and error of each image that cannot be read; None logs a warning.

    Returns:
        An iterator in the order of the files; ``id`` is the file's name below its folder, boxes are
        in pixels of the upright image.

    Raises:
        ConfigError: there is no run in ``workdir``, ``images`` names an address, ``score``, ``tta`` or
            ``precise_bn`` is invalid, or the run has no threshold of a precision.
        CheckpointError: there is no such checkpoint.
        DataError: ``precise_bn`` is asked for, and the training data cannot be read.
    """
    items = [images] if isinstance(images, (str, os.PathLike)) else list(images)
    _check(score, items)
    predictor = Predictor(
        workdir,
        step=step,
        batch_size=batch_size,
        tta=tta,
        precise_bn=precise_bn,
        phase=phase,
        tile=tile,
        tile_overlap=tile_overlap,
    )
    scores, said = thresholds.of_run(predictor.folder, predictor.class_names, score, predictor.step)
    logging.info("%s", said)
    found = detect_files(predictor, _files(predictor, items), scores, on_error or _log_error)
    return in_order((number, detections) for number, _, _, detections in found)


def _files(
    predictor: Predictor, images: Iterable[Any], exclude: Path | None = None
) -> list[ImageFile]:
    """The files to read, those that make one image together."""
    files = find_images(images, exclude=exclude)
    pattern = predictor.images.files
    return together(files, pattern) if pattern else files


def _check(score: float | str, images: Iterable[str | os.PathLike[str]]) -> None:
    """Refuses what can be known to be wrong before a run is loaded.

    Raises:
        ConfigError: the score is not one, or an address stands for an image.
    """
    thresholds.check(score)
    for item in map(str, images):
        if re.match(r"\w{2,}:/", item) and not os.path.exists(item):
            how = f" (curl -O {shlex.quote(item)})" if re.match("(https?|ftp):/", item) else ""
            raise ConfigError(f"{item} is an address; fetch it first{how}, and name the file")


def _log_error(name: str, error: Exception) -> None:
    logging.warning("%s: %s", name, error)


def detect_files(
    predictor: Predictor, files: Iterable[ImageFile], scores: np.ndarray, on_error: OnError
) -> Iterator[tuple[int, ImageFile, np.ndarray, ImageDetections]]:
    """Reads ahead in threads and detects in batches.

    Args:
        predictor: a loaded run.
        files: what to read.
        scores: lowest score to report of each class, float64 [K].
        on_error: told name and error of each file that cannot be read.

    Yields:
        Number among the files that could be read, file, upright image [H, W, C], and its detections;
        in the order in which batches of one shape are full.
    """
    held: dict[int, tuple[ImageFile, np.ndarray]] = {}

    def prepared() -> Iterator[Prepared]:
        reads = _read_ahead(files, predictor, 2 * predictor.batch_size, on_error)
        for number, (file, image, small) in enumerate(reads):
            held[number] = file, image
            yield small

    for number, found in predictor.detect(prepared()):
        file, image = held.pop(number)
        keep = (found.scores >= scores[found.labels]) & (
            found.boxes[:, :2] < found.boxes[:, 2:]
        ).all(1)
        yield number, file, image, found.select(keep)


def _read_ahead(
    files: Iterable[ImageFile],
    predictor: Predictor,
    ahead: int,
    on_error: OnError,
) -> Iterator[tuple[ImageFile, np.ndarray, Prepared]]:
    """Decoded and prepared images in order; what cannot be read is reported and left out."""

    def read(file: ImageFile) -> tuple[np.ndarray, Prepared]:
        try:
            image = predictor.images.read(file.parts or file.path)
        except DataError as error:
            if videos.is_one(file.path):
                raise DataError(videos.remedy(file.path)) from error
            raise
        return image, predictor.prepare(image, file.name)

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
    predictor: Predictor, files: Sequence[ImageFile], out: OutputFolder, score: float | str
) -> tuple[int, dict[str, str]]:
    """Detects in files and writes images and JSON; what an earlier prediction wrote there goes.

    Where a signal or an error ends it early, the JSON holds the images that were done.

    Args:
        predictor: a loaded run.
        files: what to read.
        out: folder for the results.
        score: as in ``predict``.

    Returns:
        How many images were done, and the reason by name for each that was not.

    Raises:
        ConfigError: the folder does not take more, or the run has no threshold of a precision.
    """
    scores, said = thresholds.of_run(predictor.folder, predictor.class_names, score, predictor.step)
    _say(said)
    failed: dict[str, str] = {}

    def on_error(name: str, error: Exception) -> None:
        failed[name] = str(error)
        _say(f"cannot use {name}: {error}", sys.stderr)

    place = {file.name: number for number, file in enumerate(files)}
    ids = image_ids({number: PurePosixPath(name).stem for name, number in place.items()})
    targets = drawn_names(file.name for file in files)
    images: dict[int, dict[str, Any]] = {}
    records: dict[int, list[dict[str, Any]]] = {}

    def write_json() -> None:
        write_detections(out.path / DETECTIONS, (records[number] for number in sorted(records)))
        write_index(
            out.path,
            [images[number] for number in sorted(images)],
            predictor.category_ids,
            predictor.class_names,
            info={
                "description": f"{MAKER}, step {predictor.step}, {said}",
                "precise_bn": predictor.precise_bn,
            },
            failed=[{"file_name": name, "error": error} for name, error in failed.items()],
            drawn=targets,
        )

    def done() -> str:
        return f"{len(images)} of {len(files)} images done"

    out.begin(targets)
    try:
        for _, file, image, found in detect_files(predictor, files, scores, on_error):
            number = place[file.name]
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
            target = out.images / targets[number]
            shown = predictor.display(image)
            drawn = draw_detections(shown, found, predictor.class_names, score_threshold=0.0)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                write_image(target, drawn)
            except (DataError, OSError) as error:
                if lost := out.is_lost(error):
                    raise out.refused(lost) from error
                _say(f"detected in {file.name}, but not drawn: {error}", sys.stderr)
    except BaseException as error:
        with contextlib.suppress(OSError):  # of a folder that is full
            write_json()
        if isinstance(error, KeyboardInterrupt):
            error.add_note(f"; {done()}, results in {out.path}")
        raise
    write_json()
    count = sum(map(len, records.values()))
    _say(f"{done()}, {count} objects found, {len(failed)} failed; results in {out.path}")
    return len(images), failed


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
    parser.add_argument(
        "--phase", default="", help="of a run with phases; else the last that is finished"
    )
    parser.add_argument(
        "--score",
        type=thresholds.parse,
        default="auto",
        help="lowest score to report: a number; auto, the run's thresholds of best F1 per class, else 0.3; "
        "or precision, its thresholds for the precision that jdet.analyse wanted",
    )
    parser.add_argument("--batch_size", "--batch-size", type=int, default=8, help="images per call")
    parser.add_argument(
        "--tta",
        default="none",
        choices=("none", *tta_lib.PRESETS, "run"),
        help="multi-scale testing: a preset, or run for the run's own setting",
    )
    parser.add_argument(
        "--tile",
        type=int,
        help="show images in tiles of this side, pixels, and merge what is found; 0: whole; default: as "
        "the run's config says (config.eval.tile)",
    )
    parser.add_argument("--tile_overlap", type=int, help="of tiles, pixels; default: the config's")
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

    def work() -> int:
        _check(args.score, images)
        if args.batch_size < 1:
            raise ConfigError(f"--batch_size={args.batch_size} must be at least 1")
        out = OutputFolder(args.out, map(expanded, images))
        if not find_images(images, exclude=out.images):
            raise ConfigError(
                f"no images in {', '.join(images)} (looked for {' '.join(SUFFIXES)})"
                + videos.first_in(map(expanded, images))
            )
        out.check_writable()
        predictor = Predictor(
            args.workdir,
            step=args.step,
            batch_size=args.batch_size,
            tta=args.tta,
            precise_bn=args.precise_bn,
            phase=args.phase,
            tile=args.tile,
            tile_overlap=args.tile_overlap,
        )
        files = _files(predictor, images, out.images)
        done, _ = write_results(predictor, files, out, args.score)
        return 0 if done else cli.MISTAKE

    return cli.run(work, OSError)


def _say(text: str, file: Any = None) -> None:
    """Prints, also file names that are not valid text."""
    print(os.fsencode(text).decode("utf-8", "replace"), file=file or sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
