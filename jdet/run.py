"""Training and evaluation of a config in a workdir: what the command line does, for notebooks too.

from jdet import run
result = run.train(config, "runs/mine")
metrics = run.evaluate("runs/mine")
weights = run.open_run("runs/mine").weights("best")
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import logging
from ml_collections import ConfigDict

from jdet import build, phases
from jdet import config as config_lib
from jdet.analyse.last import explain
from jdet.analysis import box_coverage, outlook
from jdet.analysis.curves import draw_log
from jdet.analysis.learning.check import make_checks
from jdet.atomic_files import write_json
from jdet.data import balance
from jdet.data.first_look import first_look
from jdet.data.pipeline import BatchStream
from jdet.data.sources import defects, fingerprint, repeated
from jdet.data.statistics import ImageStatistics
from jdet.evaluation import evaluate as evaluate_lib
from jdet.evaluation import image_kind, loaders
from jdet.evaluation.background import Background
from jdet.evaluation.detect import DetectFn
from jdet.evaluation.weights import make_weights
from jdet.parallel import broadcast, consistency
from jdet.parallel import mesh as mesh_lib
from jdet.train import budget, loggers, loop, optim, presets, schedule, state, step_memory
from jdet.train.checkpoints import select
from jdet.train.folders import stored_config
from jdet.train.init.calibrate import Calibration
from jdet.train.output import lenient
from jdet.train.progress import Outlook
from jdet.train.workdir import open_run
from jdet.types import ConfigError, Evaluated, ImageKind, Source, TrainState

DEFECTS_SHOWN = 10
"""Defects of each data set in the log; all of them are in ``defects.txt``."""


@lenient()
def train(
    config: ConfigDict,
    workdir: str | Path,
    *,
    overwrite: bool = False,
    writers: tuple = (),
    until: int | None = None,
) -> loop.Result:
    """Trains a config from random initialisation, from the weights of the run that its ``init_from``
    names, or goes on where its workdir stopped. One with phases is trained phase by phase.

    With ``config.eval.tta`` the finished network is tested at several sizes too, once all is saved.

    Args:
        config: a whole config; not changed.
        workdir: folder of the run. One that holds the same run is resumed exactly.
        overwrite: discard the run that the workdir holds.
        writers: further metric writers (``jdet.train.writers.Writer``); every phase counts its own steps.
        until: step at which a training is saved and interrupted; None: it goes on to its end. A phase
            that is interrupted is the last one.

    Returns:
        What came out; of phases the result of the last, or of one that did not come to its end.

    Raises:
        ConfigError: the config is invalid, or the workdir holds something else.
        DataError: the data set is missing or contradicts itself.
        CheckpointError: saving or restoring failed.
    """
    workdir = Path(workdir).expanduser()
    config = config.copy_and_resolve_references()
    config_lib.validate(config)

    def train_one(ready: _Ready, folder: Path, outlook: Outlook | None = None) -> loop.Result:
        whole = overwrite and outlook is None  # phases are discarded together
        given = dict(writers=writers, outlook=outlook, until=until)
        return _train(ready, folder, overwrite=whole, **given)

    if not config.phases:
        return train_one(_prepare(config, workdir, overwrite), workdir)
    return phases.train(
        config,
        workdir,
        prepare=lambda phase, folder: _prepare(phase, folder, overwrite),
        train_phase=train_one,
        overwrite=overwrite,
    )


class _Ready(NamedTuple):
    """A training whose data are there; the config has their classes."""

    config: ConfigDict
    train: Source
    evaluation: Source
    values: ImageStatistics | None

    @property
    def num_examples(self) -> int:
        """Images of an epoch."""
        return balance.epoch_length(self.train)


def _prepare(config: ConfigDict, workdir: Path, overwrite: bool) -> _Ready:
    """Opens the data of a config without phases, and fills in what the config has from them.

    What was measured for the run that the workdir holds is not measured again. Of several processes one
    measures.
    """
    mesh_lib.split_cpu(config)
    loggers.check(config.train.loggers)
    build.augment(config)  # refuses a bad one before any data is read
    config = build.with_frozen_stages(config)
    train_source, eval_source = build.sources(config)
    build.look_at_images(config, train_source)
    with config.unlocked():
        config.class_names = build.agreed_classes(config, train_source, eval_source)
        config.category_ids = build.category_ids(config, train_source)
    build.settle_class_weights(config, train_source)
    if config.train.best_metric:
        names = evaluate_lib.metric_names(config.eval.metrics, config.class_names, config.eval)
        select.check_metric(config.train.best_metric, names)
    _agree(config, {"train": train_source, "eval": eval_source}, overwrite=overwrite)
    stored = None if overwrite else broadcast.from_main(lambda: stored_config(workdir))
    if stored is not None:
        build.normalise.adopt(config, stored)
    values = build.normalise.settle(config, train_source, once=broadcast.from_main)
    if budget.open_ended(config):
        _look(config, {"train": train_source, "eval": eval_source})  # before anything is compiled
        detector = build.detector(config, config.class_names, axis_name="member")
        data = functools.partial(loaders.train_batches, config, train_source, needs=detector.needs)
        budget.settle(config, stored, detector, data, balance.epoch_length(train_source))
    return _Ready(config, train_source, eval_source, values)


def _train(ready: _Ready, workdir: Path, **given: Any) -> loop.Result:
    """Trains, or goes on with, one training in a folder of its own; ``given`` is for ``loop.train``."""
    config, train_source, eval_source, values = ready
    _look(config, {"train": train_source, "eval": eval_source})
    image_kind.check(config, eval_source, "eval data")
    mesh = mesh_lib.make_mesh(config)
    detector = build.detector(config, config.class_names, axis_name="member")
    if "masks" in detector.needs:
        loaders.check_masks(
            config, train_source, "train", f"config.model.name={config.model.name!r}"
        )
    if jax.process_index() == 0:
        _announce(config, detector, train_source, eval_source)
        for line in values.warnings() if values else ():
            logging.warning("train images: %s", line)

    batches = functools.partial(loaders.train_batches, config, train_source, needs=detector.needs)

    def train_stream(start: int) -> BatchStream:
        # Asked for once the workdir is known to be ours.
        if jax.process_index() == 0:
            defects.write(
                Path(workdir) / "defects.txt", {"train": train_source, "eval": eval_source}
            )
            if values:
                write_json(Path(workdir) / "image_statistics.json", values._asdict())
        return batches(start)

    weights = make_weights(config, detector, mesh, batches)
    calibration = Calibration(detector, mesh, config, batches)
    detect, workdir = DetectFn(detector, mesh), Path(workdir)
    files = Background(2)
    evaluation = evaluate_lib.make_evaluation(
        config, detector, eval_source, mesh, workdir, files, detect
    )
    multi_scale = evaluate_lib.make_multi_scale(config, detector, eval_source, mesh, workdir)

    def evaluate_state(trained: TrainState, step: int) -> Evaluated:
        files.submit(draw_log, workdir)
        found = evaluation(weights(trained), step)
        files.submit(outlook.tell, workdir, found.metrics, step)
        return found

    with files:
        result = loop.train(
            config,
            workdir,
            detector=detector,
            train_stream=train_stream,
            num_examples=ready.num_examples,
            train_images=len(train_source),
            evaluate=evaluate_state,
            init_transforms=[calibration] if config.calibration.iterations else [],
            checks=make_checks(
                config, detector, train_source, mesh, workdir, detect, images=ready.num_examples
            ),
            build=lambda other: build.detector(other, other.class_names),
            class_defaults=build.defaults(config),
            **given,
        )
    draw_log(workdir)  # again, now that the last evaluation is in the log
    if multi_scale is not None and result.status == "completed":
        more = multi_scale(weights(result.state), result.step, repeat=False)
        result = result._replace(metrics={**result.metrics, **more})
    if result.status == "completed":
        explain(Path(workdir), config, eval_source)
    return result


@lenient()
def evaluate(
    workdir: str | Path,
    *,
    step: int | str | None = None,
    config: ConfigDict | None = None,
    phase: str = "",
) -> dict[str, float]:
    """Evaluates a checkpoint and writes report, detections and images into the workdir.

    Args:
        workdir: folder of a run.
        step: which checkpoint: a step, "latest" (or None), or "best" by ``train.best_metric``.
        config: evaluate under these settings (data, thresholds) instead of the run's own; the network
            must be the run's.
        phase: of a run with phases; "": the last that is finished, or, where none is, that has begun.

    Returns:
        Metrics by slash names; those of multi-scale testing (``config.eval.tta``) begin with ``tta/``.

    Raises:
        ConfigError: no run there, or classes that are not the run's.
        CheckpointError: no readable checkpoint.
    """
    opened = open_run(workdir, phase)
    trained, workdir = opened.config, opened.path
    config = trained if config is None else config.copy_and_resolve_references()
    config_lib.validate(config)
    if config.phases:
        config = config_lib.of_phase(config, workdir.name)
        config_lib.validate(config)
    mesh_lib.split_cpu(config)
    config = image_kind.of_run(config, trained, workdir)
    train_source, source = build.sources(config)
    if tuple(source.class_names) != tuple(trained.class_names):
        raise ConfigError(
            f"{workdir} was trained on classes {', '.join(trained.class_names)}; config.data.eval has "
            f"{', '.join(source.class_names)}"
        )
    build.check_same_network(config, trained, workdir)
    saved = opened.weights(step, best_metric=config.train.best_metric)
    _agree(config, {"eval": source}, checkpoint=int(saved.step))
    _look(config, {"eval": source})
    image_kind.check(config, source, "eval data")
    detector = build.detector(config, source.class_names, axis_name="member")
    mesh = mesh_lib.make_mesh(config, training=config.eval.precise_bn > 0)
    files = Background(1)
    evaluation = evaluate_lib.make_evaluation(config, detector, source, mesh, Path(workdir), files)
    multi_scale = evaluate_lib.make_multi_scale(config, detector, source, mesh, Path(workdir))
    weights = make_weights(
        config,
        detector,
        mesh,
        lambda: loaders.train_batches(config, train_source, needs=detector.needs),
    )
    variables = weights(saved)
    with files:
        metrics = dict(evaluation(variables, int(saved.step)).metrics)
        files.submit(outlook.tell, Path(workdir), metrics, int(saved.step))
    draw_log(Path(workdir))
    if multi_scale is not None:
        metrics |= multi_scale(variables, int(saved.step))
    explain(Path(workdir), config, source)
    return metrics


def _agree(config: ConfigDict, sources: dict[str, Source], **more: Any) -> None:
    """Refuses to start if the processes of a run were started differently.

    Raises:
        ConfigError: names what differs and which host has what.
    """
    if jax.process_count() == 1:
        return
    facts = config_lib.flatten(config.to_dict(), "config.")
    facts = {
        k: v
        for k, v in facts.items()
        if not re.fullmatch(f"config\\.({'|'.join(config_lib.LOCAL)})", k)
    }
    for role, source in sources.items():
        facts[f"{role} data: classes"] = list(source.class_names)
        facts[f"{role} data: images"] = len(source)
        facts[f"{role} data: digest"] = fingerprint.fingerprint(source)
    consistency.check(facts | more)


def _look(config: ConfigDict, sources: dict[str, Source]) -> None:
    """Reads some images of each source before anything is compiled, and tells what is wrong with them.

    Raises:
        DataError: none or too few can be used.
    """
    for role, source in sources.items():
        look = first_look(
            source,
            f"{role} data",
            on_error=config.data.on_error,
            min_usable=config.data.min_usable,
        )
        for line in look.describe() if jax.process_index() == 0 else ():
            logging.warning("%s data: %s", role, line)


def _announce(config: ConfigDict, detector: Any, train: Source, evaluation: Source) -> None:
    """Prints data and model, which a reproduction needs in addition to the schedule."""
    for role, source in (("train", train), ("eval", evaluation)):
        text = source.describe() if hasattr(source, "describe") else f"{len(source)} images"
        logging.info("%s data: %s", role, text)
        for line in image_kind.describe(source):
            logging.info("%s images: %s", role, line)
        wrong = getattr(source, "defects", ())
        for defect in wrong[:DEFECTS_SHOWN]:
            logging.warning("%s data: %s: %s: %s", role, *defect)
        if len(wrong) > DEFECTS_SHOWN:
            more = len(wrong) - DEFECTS_SHOWN
            logging.warning("%s data: %d more; defects.txt of the workdir has all", role, more)
    for line in build.normalise.describe(config, ImageKind.of(train)):
        logging.info("%s", line)
    logging.info("%s", build.limits.describe(config, detector))
    if text := build.describe_class_weights(config, config.class_names):
        logging.info("%s", text)
    for line in getattr(train, "describe_repeats", list)():
        logging.info("%s", line)
    if text := repeated.warning(train, evaluation):
        logging.warning("%s", text)
    resize = build.resize(config)
    if sizes := resize.describe():
        logging.info("%s", sizes)
    devices = mesh_lib.pick_devices(config)
    # With the images that training traces it with, so that it is traced once.
    images = mesh_lib.split_batch(config, len(devices))
    params, stats = state.abstract_variables(detector, config, images)
    fixed = {"frozen_batch": "", "affine_batch": "statistics of "}  # of these kinds of norms
    frozen = [
        f"{fixed[kind]}config.model.{key}"
        for key, kind in config_lib.norms(config).items()
        if kind in fixed
    ]
    uses = optim.parameter_rules(config.optimizer, params)
    still = sum(use.parameters for use in uses if use.lr == 0)
    if still:
        frozen.append(f"{still:,} parameters by config.optimizer.rules")
    logging.info(
        "model: %s, %s trainable parameters, %s running statistics; %s, %s frozen",
        build.summary(config),
        f"{state.count_parameters(params) - still:,}",
        f"{state.count_parameters(stats):,}",
        f"initialised from {config.init_from.path}"
        if config.init_from.path
        else "random initialisation, nothing pre-trained",
        " and ".join(frozen) or "nothing",
    )

    for line in build.describe_norms(config):
        logging.info("%s", line)
    plain = functools.partial(build.detector, config, config.class_names)
    if text := step_memory.warning(config, plain, resize.largest, mesh_lib.pick_devices(config)):
        logging.warning("%s", text)
    objects = box_coverage.sampler(train, resize, tile=build.train_tile(config))
    peak_lr = schedule.resolve(config, balance.epoch_length(train)).peak_lr
    for warning in presets.warnings(config, detector, peak_lr):
        logging.warning("%s", warning)
    if warning := detector.start_warning(objects, config.class_names, resize):
        logging.warning("%s", warning)
