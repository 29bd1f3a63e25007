"""AP of a file on the evaluation split of its run, and the images on which int8 layers are measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from absl import logging

from jdet import build
from jdet.data.find_images import find_images, together
from jdet.evaluation import report
from jdet.evaluation.evaluate import make_evaluators
from jdet.evaluation.predictor import Predictor
from jdet.export.parity import spread
from jdet.types import ConfigError, DataError, ImageDetections, Source


def check(predictor: Predictor) -> Source:
    """The run's evaluation split.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        _, source = build.sources(predictor.config)
    except (ConfigError, DataError) as error:
        raise ConfigError(
            f"AP before and after cannot be measured, since the run's evaluation split cannot be read "
            f"({error}); bring it back, or go without with --ap_images=0"
        ) from error
    return source


def metrics(
    predictor: Predictor,
    detect: Callable[[np.ndarray, str], ImageDetections],
    source: Source,
    count: int,
) -> dict[str, float]:
    """The run's own metrics of a file whose thresholds let everything through.

    Args:
        predictor: the run.
        detect: the file.
        source: the evaluation split.
        count: of its images that are looked at, evenly spread; below 0: all.

    Returns:
        Means over classes, under slash names, without those that are not defined.
    """
    config = predictor.config
    evaluators = make_evaluators(config.eval.metrics, source.class_names, config.eval)
    for index in spread(len(source), len(source) if count < 0 else min(count, len(source))):
        try:
            example = source[index]
            image = predictor.images.read(example.image, example.id)
        except DataError as error:
            if config.data.on_error != "skip":
                raise
            logging.warning("passed over: %s", error)
            continue
        found = detect(image, example.id)
        for evaluator in evaluators:
            evaluator.add(found, example)
    each = tuple(report.per_class(evaluators))
    result: dict[str, float] = {}
    for evaluator in evaluators:
        for name, value in evaluator.result().items():
            if math.isfinite(value) and not name.startswith(tuple(f"{x}/AP/" for x in each)):
                result[name] = float(value)
    return result


def said(before: dict[str, float], after: dict[str, float], name: str) -> str:
    """Both, in one line."""
    pairs = (f"{key} {before[key]:.4f} → {after.get(key, math.nan):.4f}" for key in before)
    return f"float32 → {name}: " + ", ".join(pairs)


def training_images(
    predictor: Predictor, paths: Sequence[str], count: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Images that say how large the inputs of layers are: as the network sees them, so tiles of large ones.

    Args:
        predictor: the run.
        paths: files and folders; none: the run's training split.
        count: how many, evenly spread.

    Raises:
        ConfigError: there are none.
    """
    try:
        if paths:
            files = find_images(paths)
            if predictor.images.files:
                files = together(files, predictor.images.files)
            chosen = [files[i] for i in spread(len(files), count)]
            read = [(f.name, f.parts or f.path) for f in chosen]
        else:
            source, _ = build.sources(predictor.config)
            examples = (source[i] for i in spread(len(source), count))
            read = [(each.id, each.image) for each in examples]
    except (ConfigError, DataError) as error:
        raise ConfigError(
            f"int8 is calibrated on images of the training, which cannot be read ({error}); bring them "
            "back, or name others with --calibrate_on=PATH"
        ) from error
    if not read:
        raise ConfigError(
            f"there is no image in {', '.join(paths)}; name files or folders that have some with "
            "--calibrate_on=PATH"
        )
    for number, (name, where) in enumerate(read):
        image = predictor.images.read(where, name)
        if predictor.tiling:
            tiles = predictor.tiling.tiles(*image.shape[:2])
            image = tiles[number % len(tiles)].cut(image)
        yield name, image
