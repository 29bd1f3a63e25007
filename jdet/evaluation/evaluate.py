"""One pass over the evaluation set, at one input size or at several, and what it leaves in the workdir.

``report.json`` holds the metrics with what they depend on, ``detections.json`` and ``images.json`` all
detections as COCO result files (``jdet.evaluation.results``), ``evaluation_curves.json`` precision over
recall, and ``detections/`` drawn images. ``analysis.json`` and ``report.html``, which are made of these
files (``jdet.analyse``, ``jdet.html_report``), go: they are of the evaluation before.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from jdet import build
from jdet.atomic_files import write_json
from jdet.data.pipeline import BatchStream
from jdet.data.readers.decoder import Decoder
from jdet.data.transforms.multi_scale import View
from jdet.evaluation import drawing, loaders, report, tta
from jdet.evaluation import results as results_lib
from jdet.evaluation.background import Background
from jdet.evaluation.detect import DetectFn, to_images
from jdet.evaluation.display import Display
from jdet.evaluation.gather import Evaluator, Gather, SampleImages, Scored
from jdet.evaluation.multi_scale import MultiScale
from jdet.evaluation.results import Results
from jdet.evaluation.tiling import Tiling
from jdet.parallel import broadcast
from jdet.train import state
from jdet.train.folders import EVALUATION, remove_views
from jdet.types import Batch, ConfigError, Evaluated, ImageDetections, ImageKind, Source

MULTI_SCALE_DETECTIONS = "detections_tta.json"
"""Of multi-scale testing, as ``detections.json``."""


def make_evaluators(
    names: Sequence[str],
    class_names: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Evaluator]:
    """The evaluators named in ``config.eval.metrics``.

    Args:
        names: rows of the build kind ``evaluator``, or "module:Class".
        class_names: K names, in label order.
        settings: the group ``eval`` of a config. An evaluator whose class names one of its groups as
            ``settings`` is given what is in it; None: its defaults.

    Returns:
        One empty evaluator per name.

    Raises:
        ConfigError: a name that does not exist, or an evaluator that cannot be made.
    """
    made: list[Evaluator] = []
    try:
        for name in names:
            factory = build.resolve("evaluator", name)
            group = getattr(build.class_of(factory), "settings", "")
            made.append(factory(class_names, **(settings[group] if settings and group else {})))
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"config.eval.metrics: {error}") from error
    return made


def metric_names(
    names: Sequence[str],
    class_names: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[str]:
    """Names of the metrics that the evaluators of ``make_evaluators`` will return."""
    found: list[str] = []
    for evaluator in make_evaluators(names, class_names, settings):
        found += evaluator.result()
    return found


def needs_masks(config: ConfigDict, class_names: Sequence[str]) -> bool:
    """Whether an evaluator of ``config.eval.metrics`` compares masks."""
    made = make_evaluators(config.eval.metrics, class_names, config.eval)
    return any("masks" in getattr(evaluator, "needs", ()) for evaluator in made)


def make_evaluation(
    config: ConfigDict,
    detector: Any,
    source: Source,
    mesh: Any,
    workdir: Path,
    background: Background,
    detect: DetectFn | None = None,
) -> Callable[[Any, int], Evaluated]:
    """``evaluation(variables, step)``: metrics and drawn images; writes all files of an evaluation.

    The network is compiled once per input shape, at the first call of this or of the given ``detect``.
    Detections and report are written in the background, after what was handed over before.

    Raises:
        ConfigError: ``config.eval.metrics`` or ``drawn_bands`` names what does not exist.
        DataError: it compares masks, and the source has none.
    """
    # A wrong one fails here, before anything is compiled.
    made = make_evaluators(config.eval.metrics, source.class_names, config.eval)
    for name, evaluator in zip(config.eval.metrics, made, strict=True):
        if "masks" in getattr(evaluator, "needs", ()):
            loaders.check_masks(config, source, "eval", f"config.eval.metrics {name!r}")
    display = Display.of(config, ImageKind.of(source))
    detect = detect or DetectFn(detector, mesh)
    tiling = Tiling.of(config.eval.tile)
    if tiling and jax.process_index() == 0 and (text := tiling.warning(source)):
        logging.warning("%s", text)

    def evaluation(variables: Any, step: int) -> Evaluated:
        options: dict[str, Any] = dict(samples=config.eval.images, tiling=tiling)
        found = evaluate(config, source, mesh, detect, detect.fold(variables), **options)
        if jax.process_index() != 0:
            return Evaluated(found.metrics)
        background.wait()  # for the files of the evaluation before
        remove_views(workdir)
        curves: dict[str, Any] = {}
        for evaluator in found.evaluators:
            curves |= evaluator.curves() if hasattr(evaluator, "curves") else {}
        background.submit(_write, workdir, config, source, step, found, curves)
        report.print_table(found.metrics, source.class_names, report.per_class(found.evaluators))
        drawn = drawing.write_images(
            workdir / "detections",
            found.samples.pairs,
            source.class_names,
            decoder=Decoder.of(source),
            display=display,
            score_threshold=config.eval.score_drawn,
        )
        images = {f"detections/{name}": image for name, image in drawn.items()}
        return Evaluated(found.metrics, images, background.wait)

    return evaluation


def _write(
    workdir: Path,
    config: ConfigDict,
    source: Source,
    step: int,
    found: Outcome,
    curves: Mapping[str, Any],
) -> None:
    """Writes detections, curves and report of an evaluation."""
    found.results.write(workdir, _category_ids(config, source))
    write_json(workdir / EVALUATION, {"step": step, "curves": curves})
    report.write_report(
        workdir / "report.json",
        step=step,
        metrics=found.metrics,
        settings=report.settings_of(config, source, found.evaluators),
        seconds_per_image=found.seconds_per_image,
    )


def make_multi_scale(
    config: ConfigDict, detector: Any, source: Source, mesh: Any, workdir: Path
) -> Callable[..., dict[str, float]] | None:
    """``evaluation(variables, step, repeat=True)`` by ``config.eval.tta``; None where it is off.

    It returns metrics whose names begin with ``tta/``, prints them beside those of one size, adds them to
    ``report.json`` and writes ``detections_tta.json``. Without ``repeat``, what the report already holds is
    not done again.

    Raises:
        ConfigError: a bad setting, a detector that takes one input size, or a size without levels;
            from the evaluation, a scale for which memory does not suffice.
    """
    settings = tta.settings(config.eval.tta)
    if settings is None:
        return None
    detect = DetectFn(detector, mesh)
    multi_scale = MultiScale(detect, settings, build.resize(config))
    batch_size = loaders.eval_batch_size(config, mesh)
    params, stats = state.abstract_variables(detector, config)
    multi_scale.check(state.variables(params, stats), batch_size)
    path, group = workdir / "report.json", config.eval.tta.to_dict()

    def evaluation(variables: Any, step: int, *, repeat: bool = True) -> dict[str, float]:
        if not repeat:
            held = broadcast.from_main(lambda: report.multi_scale_metrics(path, step, group))
            if held:
                return held
        logging.info("multi-scale testing, %d passes per image", multi_scale.passes_per_image)
        variables = detect.fold(variables)
        multi_scale.prepare(variables, batch_size)
        found = evaluate(
            config,
            source,
            mesh,
            multi_scale.detect,
            variables,
            views=multi_scale.views,
            to_images=multi_scale.to_images,
        )
        metrics = {f"{report.MULTI_SCALE}{name}": value for name, value in found.metrics.items()}
        if jax.process_index() == 0:
            ids = _category_ids(config, source)
            found.results.write(workdir, ids, name=MULTI_SCALE_DETECTIONS)
            whole = report.add_multi_scale(
                path,
                step=step,
                metrics=metrics,
                settings=group,
                seconds_per_image=found.seconds_per_image,
            )
            means = report.per_class(found.evaluators)
            report.print_table(whole["metrics"], source.class_names, means)
            print(report.format_speed(whole))
        return metrics

    return evaluation


class Outcome(NamedTuple):
    """One pass over the evaluation set; what evaluators, results and samples hold is on process 0.

    Attributes:
        metrics: of all evaluators, on every process.
        evaluators: that were given every image, in this order.
        results: the detections of every image.
        samples: images to draw.
        seconds_per_image: after the first batch, which brings the compilation; None for a set of one
            batch. Rows that fill up the last batch count as images, for they cost as much; of tiles, all
            of an image count as one.
    """

    metrics: dict[str, float]
    evaluators: Sequence[Evaluator]
    results: Results
    samples: SampleImages
    seconds_per_image: float | None


def evaluate(
    config: ConfigDict,
    source: Source,
    mesh: Any,
    detect: Callable[..., Any],
    variables: Any,
    *,
    evaluators: Sequence[Evaluator] | None = None,
    views: Sequence[View] = (),
    samples: int = 0,
    to_images: Callable[[Any, Batch, Sequence[str]], list[ImageDetections]] = to_images,
    tiling: Tiling | None = None,
) -> Outcome:
    """Runs over the evaluation set once; of several processes each reads its own rows of every batch.

    Args:
        config: complete config.
        source: the evaluation set.
        mesh: of the run.
        detect: as in ``evaluate_stream``.
        variables: the detector's variables, on device.
        evaluators: given every image; None: those of ``config.eval.metrics``.
        views: as in ``loaders.eval_batches``.
        samples: images to keep for drawing.
        to_images: as in ``evaluate_stream``.
        tiling: show images in tiles; then ``views`` and ``to_images`` are not used.
    """
    if evaluators is None:
        evaluators = make_evaluators(config.eval.metrics, source.class_names, config.eval)
    expected = loaders.eval_images(config, source)
    keep, results = SampleImages(samples, expected), Results(source)
    marks: list[float] = []
    rows_per_image = 1.0
    if tiling is None:
        opened = loaders.eval_batches(config, source, mesh, views)
    else:
        opened, merger, rows_per_image = loaders.tile_stream(config, source, mesh, tiling)
        to_images = merger.to_images
    with opened as stream:
        metrics = evaluate_stream(
            detect,
            variables,
            stream,
            source,
            [*evaluators, keep],
            expected=expected,
            on_progress=lambda *_: marks.append(time.perf_counter()),
            to_images=to_images,
            results=results,
        )
    later = (len(marks) - 1) * loaders.eval_batch_size(config, mesh)
    seconds = (marks[-1] - marks[0]) / later * rows_per_image if later else None
    return Outcome(metrics, evaluators, results, keep, seconds)


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
    results: Results | None = None,
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
        results: given the detections of every image, on process 0.

    Returns:
        All evaluators' numbers, on every process.

    Raises:
        ValueError: the detector has labels for which the source has no class.
        RuntimeError: an image came twice or not at all, so that the numbers would be wrong. Only
            what the stream itself skipped as unreadable may be missing; a warning counts it.
    """
    gather = Gather(source, evaluators, len(source) if expected is None else expected, results)
    alone = jax.process_count() == 1
    ready: deque[list[Scored]] = deque()
    done = 0

    def handle(batch: Batch, found: Any) -> None:
        nonlocal done
        rows = np.flatnonzero(batch.real)
        index = np.asarray(batch.index)
        gather.check(index[rows])
        ground_truths = {row: source[int(index[row])] for row in rows}
        ids = [ground_truths[row].id if row in ground_truths else "" for row in range(len(index))]
        images = to_images(found, batch, ids)
        scored = [
            (int(index[row]), image, ground_truths[row])
            for image, row in zip(images, rows, strict=True)
        ]
        if alone:
            gather.add(scored)
        else:
            ready.append(scored)
        done += len(rows)
        if on_progress is not None:
            on_progress(done, gather.expected)

    def exchange() -> None:
        while ready:
            gather.add(ready.popleft())

    # One batch is read, another on the device, and the one before is scored. What several processes
    # exchange goes through the devices, and stays in this thread.
    with Background(1) as background:
        for batch in stream:
            found = detect_fn(variables, batch.images, batch.image_sizes)
            background.wait()
            exchange()  # in the same place of the order on all processes
            background.submit(handle, batch, found)
    exchange()
    return gather.result(len(stream.report().skipped) if isinstance(stream, BatchStream) else 0)


def _category_ids(config: ConfigDict, source: Source) -> tuple[int | str, ...]:
    """The evaluation set's own ids of the classes, else the run's."""
    own = getattr(source, "category_ids", None)
    return results_lib.category_ids(source.class_names, own, config.category_ids)
