"""Weights to evaluate, and one walk over the evaluation set at one input size or at several."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from jdet.data import pipeline
from jdet.data.framing import Framing
from jdet.evaluation import report, runner, tta
from jdet.hosts import exchange
from jdet.train import precise_bn, sharding, state
from jdet.types import ConfigError, Source


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
        return jax.device_put(variables, sharding.replicated(mesh))

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
    framing = Framing.from_config(config)
    looking = tta.MultiScale(runner.DetectFn(detector, mesh), settings, framing)
    params, stats = state.abstract_variables(detector, config)
    looking.check({"params": params, "batch_stats": stats}, eval_batch(config, mesh))
    path, group = workdir / "report.json", config.eval.tta.to_dict()

    def run(variables: Any, step: int, *, repeat: bool = True) -> dict[str, float]:
        if not repeat:
            held = exchange.from_main(lambda: report.multi_scale_metrics(path, step, group))
            if held:
                return held
        logging.info("multi-scale testing, %d looks at each picture", looking.looks)
        looking.prepare(variables, eval_batch(config, mesh))
        found, seconds = walk(
            config,
            source,
            mesh,
            looking.detect,
            variables,
            input_size=looking.views,
            to_pictures=looking.to_pictures,
        )
        metrics = {f"{report.MULTI_SCALE}{name}": value for name, value in found.items()}
        if jax.process_index() == 0:
            whole = report.add_multi_scale(
                path, step=step, metrics=metrics, settings=group, seconds_per_picture=seconds
            )
            report.print_table(whole["metrics"], source.class_names)
            print(report.format_speed(whole))
        return metrics

    return run


def walk(
    config: ConfigDict,
    source: Source,
    mesh: Any,
    detect: Callable[..., Any],
    variables: Any,
    *,
    input_size: Any = None,
    also: runner.KeepPictures | None = None,
    **options: Any,
) -> tuple[dict[str, float], float | None]:
    """Metrics of one walk over the evaluation set, and seconds per picture after the first batch.

    Of several processes each reads its own rows of every batch. The first batch brings the
    compilation; a set of one batch has no speed (None). Rows that fill up the last batch count as
    pictures, for they cost as much.
    """
    evaluators: list[Any] = runner.make_evaluators(config.eval.metrics, source.class_names)
    marks: list[float] = []
    batch_size = eval_batch(config, mesh)
    with pipeline.eval_batches(
        source,
        input_size=input_size or Framing.from_config(config),
        batch_size=batch_size,
        limit=config.eval.max_pictures,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        **reading(config),
    ) as stream:
        metrics = runner.evaluate(
            detect,
            variables,
            stream,
            source,
            [*evaluators, also] if also else evaluators,
            expected=pictures(config, source),
            on_progress=lambda *_: marks.append(time.perf_counter()),
            **options,
        )
    later = len(marks) - 1
    return metrics, (marks[-1] - marks[0]) / (later * batch_size) if later else None


def pictures(config: ConfigDict, source: Source) -> int:
    """How many pictures an evaluation looks at."""
    return min(len(source), config.eval.max_pictures) or len(source)


def eval_batch(config: ConfigDict, mesh: Any) -> int:
    """Pictures at a time: ``eval.batch_size``, brought up to a multiple of the devices."""
    return -(-config.eval.batch_size // mesh.size) * mesh.size


def reading(config: ConfigDict) -> dict[str, Any]:
    """Settings that all input streams share."""
    data = config.data
    keys = ("max_boxes", "workers", "threads", "prefetch", "on_error")
    return {key: data[key] for key in keys}
