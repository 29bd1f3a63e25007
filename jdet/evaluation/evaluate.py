"""Weights to evaluate, and one walk over the evaluation set at one input size or at several."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from jdet import build
from jdet.data import pipeline
from jdet.data.pipeline import BatchStream
from jdet.data.transforms.multi_scale import View
from jdet.evaluation import report, tta
from jdet.evaluation.coco_ap import CocoEvaluator
from jdet.evaluation.detect import DetectFn, to_images
from jdet.evaluation.gather import Evaluator, Gather, SampleImages
from jdet.evaluation.voc_ap import VocEvaluator
from jdet.parallel import broadcast
from jdet.parallel import mesh as mesh_lib
from jdet.train import precise_bn, state
from jdet.types import Batch, ConfigError, ImageDetections, Source

_EVALUATORS = {"voc": VocEvaluator, "coco": CocoEvaluator}


def make_evaluators(names: Sequence[str], class_names: Sequence[str]) -> list[Evaluator]:
    """The evaluators that ``config.eval.metrics`` asks for.

    Args:
        names: of ``"voc"`` and ``"coco"``.
        class_names: K names, in label order.

    Returns:
        One empty evaluator per name.

    Raises:
        ConfigError: a name that does not exist.
    """
    for name in names:
        if name not in _EVALUATORS:
            raise ConfigError(f"eval.metrics: no metric {name!r}; there are {sorted(_EVALUATORS)}")
    return [_EVALUATORS[name](class_names) for name in names]


def metric_names(names: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """What the evaluators of ``make_evaluators`` call their numbers, known before any image."""
    found: list[str] = []
    for evaluator in make_evaluators(names, class_names):
        found += evaluator.result()
    return found


def make_weights(
    config: ConfigDict,
    detector: Any,
    mesh: Any,
    train_batches: Callable[[], pipeline.BatchStream],
) -> Callable[[Any], dict[str, Any]]:
    """``weights(state)``: the variables to evaluate, on the mesh, by ``eval.use_ema`` and ``precise_bn``.

    Args:
        config: complete config.
        detector: with the mesh's axis name in its norms.
        mesh: of the run.
        train_batches: opens the training stream at its first batch.

    Raises:
        ConfigError: ``eval.precise_bn`` without batch norms; from ``weights``, what the stream raises.
    """
    wanted, model = config.eval.precise_bn, config.model

    def on_mesh(trained: Any) -> dict[str, Any]:
        variables = state.eval_variables(trained, config.eval.use_ema)
        return jax.device_put(variables, mesh_lib.replicated(mesh))

    if not wanted:
        return on_mesh
    if not {model.norm, model.head_norm} & {"batch", "sync_batch"}:
        raise ConfigError(
            f"config.eval.precise_bn={wanted} measures the statistics of batch norms; config.model.norm "
            f"is {model.norm}, head_norm {model.head_norm}: set it to 0"
        )
    measure = precise_bn.make_precise_bn(detector, mesh, config)

    def weights(trained: Any) -> dict[str, Any]:
        logging.info("statistics of batch norms from the first %d training batches", wanted)
        with train_batches() as batches:
            return measure(on_mesh(trained), batches)

    return weights


def make_multi_scale(
    config: ConfigDict, detector: Any, source: Source, mesh: Any, workdir: Path
) -> Callable[..., dict[str, float]] | None:
    """``evaluation(variables, step, repeat=True)`` by ``config.eval.tta``; None where it is off.

    It returns metrics whose names begin with ``tta/``, prints them beside those of one size, and adds
    them to ``report.json``. Without ``repeat``, what the report already holds is not done again.

    Raises:
        ConfigError: a bad setting, a detector that takes one input size, or a size without levels;
            from the evaluation, a scale for which memory does not suffice.
    """
    settings = tta.settings(config.eval.tta)
    if settings is None:
        return None
    looking = tta.MultiScale(DetectFn(detector, mesh), settings, build.resize(config))
    params, stats = state.abstract_variables(detector, config)
    looking.check({"params": params, "batch_stats": stats}, eval_batch(config, mesh))
    path, group = workdir / "report.json", config.eval.tta.to_dict()

    def run(variables: Any, step: int, *, repeat: bool = True) -> dict[str, float]:
        if not repeat:
            held = broadcast.from_main(lambda: report.multi_scale_metrics(path, step, group))
            if held:
                return held
        logging.info("multi-scale testing, %d looks at each image", looking.looks)
        looking.prepare(variables, eval_batch(config, mesh))
        found, seconds = evaluate(
            config,
            source,
            mesh,
            looking.detect,
            variables,
            views=looking.views,
            to_images=looking.to_images,
        )
        metrics = {f"{report.MULTI_SCALE}{name}": value for name, value in found.items()}
        if jax.process_index() == 0:
            whole = report.add_multi_scale(
                path, step=step, metrics=metrics, settings=group, seconds_per_image=seconds
            )
            report.print_table(whole["metrics"], source.class_names)
            print(report.format_speed(whole))
        return metrics

    return run


def evaluate(
    config: ConfigDict,
    source: Source,
    mesh: Any,
    detect: Callable[..., Any],
    variables: Any,
    *,
    views: Sequence[View] = (),
    also: SampleImages | None = None,
    **options: Any,
) -> tuple[dict[str, float], float | None]:
    """Metrics of one walk over the evaluation set, and seconds per image after the first batch.

    Of several processes each reads its own rows of every batch. The first batch brings the
    compilation; a set of one batch has no speed (None). Rows that fill up the last batch count as
    images, for they cost as much.
    """
    evaluators: list[Any] = make_evaluators(config.eval.metrics, source.class_names)
    marks: list[float] = []
    batch_size = eval_batch(config, mesh)
    with pipeline.eval_batches(
        source,
        resize=None if views else build.resize(config),
        views=views,
        batch_size=batch_size,
        limit=config.eval.max_images,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        **reading(config),
    ) as stream:
        metrics = evaluate_stream(
            detect,
            variables,
            stream,
            source,
            [*evaluators, also] if also else evaluators,
            expected=images(config, source),
            on_progress=lambda *_: marks.append(time.perf_counter()),
            **options,
        )
    later = len(marks) - 1
    return metrics, (marks[-1] - marks[0]) / (later * batch_size) if later else None


def evaluate_stream(
    detect_fn: Callable[[Any, Any, Any], Any],
    variables: Any,
    stream: Iterable[Batch],
    source: Source,
    evaluators: Sequence[Evaluator],
    *,
    expected: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    to_images: Callable[[Any, Batch, Sequence[str]], list[ImageDetections]] = to_images,
) -> dict[str, float]:
    """Detects in every image of a stream and evaluates against the source's own objects.

    The ground truth is ``source[index]``, not the batch's padded copy, which may hold fewer objects.

    Args:
        detect_fn: a ``DetectFn``, or ``MultiScale.detect`` for a stream of several sizes.
        variables: the detector's variables, on device.
        stream: batches, each image once; the last may be padded (``real`` False). Of several
            processes, each has its own rows, and all have equally many batches.
        source: what the stream reads; its first ``expected`` images are what must come.
        evaluators: each gets every image, on process 0; their results are merged.
        expected: number of images, ``len(source)`` if None.
        on_progress: called with (images done, images expected) after every batch; of several
            processes each counts its own.
        to_images: what makes image detections of ``detect_fn``'s result; ``MultiScale``'s own.

    Returns:
        All evaluators' numbers, on every process.

    Raises:
        ValueError: the detector has labels for which the source has no class.
        RuntimeError: an image came twice or not at all, so that the numbers would be wrong. Only
            what the stream itself skipped as unreadable may be missing; a warning counts it.
    """
    tally = Gather(source, evaluators, len(source) if expected is None else expected)
    done = 0

    def finish(detections: Any, batch: Batch) -> None:
        nonlocal done
        rows = np.flatnonzero(batch.real)
        index = np.asarray(batch.index)
        tally.check(index[rows])
        ground_truths = {row: source[int(index[row])] for row in rows}
        ids = [ground_truths[row].id if row in ground_truths else "" for row in range(len(index))]
        images = to_images(detections, batch, ids)
        tally.add(
            [
                (int(index[row]), image, ground_truths[row])
                for image, row in zip(images, rows, strict=True)
            ]
        )
        done += len(rows)
        if on_progress is not None:
            on_progress(done, tally.expected)

    pending: tuple[Any, Batch] | None = None
    for batch in stream:
        # Dispatch returns at once; the batch before is scored while the device works on this one.
        found = detect_fn(variables, batch.images, batch.image_sizes)
        if pending is not None:
            finish(*pending)
        pending = found, batch
    if pending is not None:
        finish(*pending)
    return tally.result(len(stream.report().skipped) if isinstance(stream, BatchStream) else 0)


def images(config: ConfigDict, source: Source) -> int:
    """How many images an evaluation looks at."""
    return min(len(source), config.eval.max_images) or len(source)


def eval_batch(config: ConfigDict, mesh: Any) -> int:
    """Images at a time: ``eval.batch_size``, brought up to a multiple of the devices."""
    return -(-config.eval.batch_size // mesh.size) * mesh.size


def reading(config: ConfigDict) -> dict[str, Any]:
    """Settings that all input streams share."""
    data = config.data
    keys = ("max_boxes", "workers", "threads", "prefetch", "on_error")
    return {key: data[key] for key in keys}
