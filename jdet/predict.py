"""Finds objects in images with a trained run.

    python -m jdet.predict --workdir=RUN --images=FOLDER_OR_FILES --out=DIR

writes ``DIR/images/`` (every image with boxes, labels and scores), ``DIR/detections.json`` (a
COCO result list, with file and category names) and ``DIR/images.json`` (the images and categories
it refers to, in COCO's form, and the files that could not be read). For programs:

    for found in predict("RUN", ["a.jpg", "folder"]):
        print(found.id, found.boxes, found.scores, found.labels)

Images are turned upright as their EXIF tag says; boxes refer to the upright image.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from jdet.atomic_files import write_json
from jdet.data.find_images import SUFFIXES, ImageFile, find_images, unique_name
from jdet.data.image_io import read_image, write_image
from jdet.evaluation import tta as multi_scale
from jdet.evaluation.drawing import draw_detections
from jdet.evaluation.predictor import Predictor, Started, Views
from jdet.evaluation.results import to_coco_json
from jdet.train.checkpoints import checkpoint
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
        on_error: told name and error of each image that cannot be read; None logs a warning.

    Returns:
        An iterator in the order of the files; ``id`` is the file's name below its folder, boxes are
        in pixels of the upright image.

    Raises:
        ConfigError: there is no run in ``workdir``, or ``tta`` cannot be.
        CheckpointError: there is no such checkpoint.
    """
    predictor = Predictor(workdir, step=step, batch_size=batch_size, tta=tta)
    found = detect_files(predictor, find_images(images), score, on_error or _log_error)
    return (detections for _, _, detections in found)


def _log_error(name: str, error: Exception) -> None:
    logging.warning("%s: %s", name, error)


def detect_files(
    predictor: Predictor, files: Iterable[ImageFile], score: float, on_error: OnError
) -> Iterator[tuple[ImageFile, np.ndarray, ImageDetections]]:
    """Reads ahead in threads, detects in batches, and has one batch on the device all the time.

    Args:
        predictor: a loaded run.
        files: what to read.
        score: lowest score to report.
        on_error: told name and error of each file that cannot be read.

    Yields:
        File, upright image uint8 [H, W, 3], and its detections, in order.
    """
    pending: tuple[list[Started], list[tuple[ImageFile, np.ndarray]]] | None = None

    def finish() -> Iterator[tuple[ImageFile, np.ndarray, ImageDetections]]:
        if pending is None:
            return
        found, images = pending
        names = [file.name for file, _ in images]
        results = predictor.finish(found, names, [image.shape[:2] for _, image in images])
        for (file, image), result in zip(images, results, strict=True):
            keep = (result.scores >= score) & (result.boxes[:, :2] < result.boxes[:, 2:]).all(1)
            yield file, image, result.select(keep)

    reads = _read_ahead(files, predictor.prepare, 2 * predictor.batch_size, on_error)
    while group := list(itertools.islice(reads, predictor.batch_size)):
        started = predictor.start([small for _, _, small in group])
        yield from finish()
        pending = started, [(file, image) for file, image, _ in group]
    yield from finish()


def _read_ahead(
    files: Iterable[ImageFile],
    prepare: Callable[[np.ndarray], Views],
    ahead: int,
    on_error: OnError,
) -> Iterator[tuple[ImageFile, np.ndarray, Views]]:
    """Decoded and prepared images in order; what cannot be read is reported and left out."""

    def read(path: Path) -> tuple[np.ndarray, Views]:
        image = read_image(path, exif=True)
        return image, prepare(image)

    waiting: deque = deque()
    pool = ThreadPoolExecutor(_READERS)
    try:
        for file in [*files, None]:
            if file is not None:
                waiting.append((file, pool.submit(read, file.path)))
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

    image_ids = {file.name: number for number, file in enumerate(files, 1)}
    taken: set[str] = set()
    images: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for file, image, found in detect_files(predictor, files, score, on_error):
        target = Path(file.name)
        if target.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            target = target.with_name(f"{target.name}.jpg")
        target = out / "images" / unique_name(target.as_posix(), taken)
        drawn = draw_detections(image, found, predictor.class_names, score_threshold=score)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_image(target, drawn)
        except (DataError, OSError) as error:
            on_error(file.name, error)
            continue
        height, width = image.shape[:2]
        info = {"id": image_ids[file.name], "file_name": file.name}
        images.append({**info, "width": width, "height": height})
        own = to_coco_json(found, image_ids[file.name], predictor.category_ids)
        for record, label in zip(own, found.labels, strict=True):
            name = predictor.class_names[label]
            records.append({**record, "file_name": file.name, "category_name": name})
    classes = zip(predictor.category_ids, predictor.class_names, strict=True)
    categories = [{"id": number, "name": name} for number, name in classes]
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "detections.json", records)
    write_json(
        out / "images.json",
        {
            "info": {"description": f"jdet.predict, step {predictor.step}, score >= {score}"},
            "images": images,
            "categories": categories,
            "annotations": [],
            "failed": [{"file_name": k, "error": v} for k, v in failed.items()],
        },
    )
    _say(
        f"{len(images)} of {len(files)} images done, {len(records)} objects found, "
        f"{len(failed)} failed; results in {out}"
    )
    return len(images), failed


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 if an image was done, 1 if none."""
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
        help=f"multi-scale testing: {', '.join(multi_scale.PRESETS)}, or run for the run's own setting",
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
    files = find_images(images, exclude=out)
    if not files:
        _say(
            f"error: no images in {', '.join(images)} (looked for {' '.join(SUFFIXES)})",
            sys.stderr,
        )
        return 1
    try:
        predictor = Predictor(
            args.workdir, step=args.step, batch_size=args.batch_size, tta=args.tta
        )
        done, _ = write_results(predictor, files, out, args.score)
    except (ConfigError, DataError, checkpoint.CheckpointError, OSError) as error:
        _say(f"error: {error}", sys.stderr)
        return 1
    return 0 if done else 1


def _say(text: str, file: Any = None) -> None:
    """Prints, also file names that are not valid text."""
    print(os.fsencode(text).decode("utf-8", "replace"), file=file or sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
