"""The life of a run: set up or resume, train, and end in good order.

What happens at every step is said by ``jdet.train.cycle``.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jdet.atomic_files import FULL, what_is_full
from jdet.parallel import broadcast, device_memory
from jdet.parallel import mesh as mesh_lib
from jdet.parallel.prefetch import DevicePrefetcher
from jdet.train import budget, early_stop, optim, provenance, schedule, state
from jdet.train.checkpoints import checkpoint
from jdet.train.checks import Check, Checks
from jdet.train.cycle import Cycle, Evaluate, NotFinite, Result
from jdet.train.diagnostics.landscape import Landscape
from jdet.train.folders import LANDSCAPE, METRICS
from jdet.train.init import from_scratch, init_from
from jdet.train.init import transforms as init_lib
from jdet.train.init.transforms import InitTransform
from jdet.train.loggers import loggers_in
from jdet.train.policy import Decisions, Policy
from jdet.train.preemption import StopRequest
from jdet.train.progress import Outlook, Progress
from jdet.train.step import make_diagnosis, make_probe, make_train_step
from jdet.train.workdir import Workdir, open_together
from jdet.train.writers import Writer, writers_in
from jdet.types import Batch, ConfigError, TrainState


def train(
    config: ConfigDict,
    workdir: str | Path,
    *,
    detector: Any,
    train_stream: Callable[[int], Iterable[Batch]],
    num_examples: int,
    train_images: int | None = None,
    evaluate: Evaluate | None = None,
    overwrite: bool = False,
    writers: Sequence[Writer] = (),
    build: Callable[[ConfigDict], Any] | None = None,
    init_transforms: Sequence[InitTransform] = (),
    policy: Policy | None = None,
    checks: Sequence[Check] = (),
    class_defaults: Mapping[str, Any] | None = None,
    outlook: Outlook | None = None,
    until: int | None = None,
) -> Result:
    """Trains a detector in a folder, from the beginning or from where a run there was left.

    A run goes on exactly: on one device, the same weights come out bit for bit, whenever and however
    it was stopped in between.

    Args:
        config: complete config, validated (``jdet.config.validate``); it is not changed.
        workdir: folder of the run, made if it is not there.
        detector: Linen module with ``losses(batch, *, train) -> dict[str, Mean]``.
        train_stream: given k, an endless iterable of host-local numpy batches (``train.batch_size``
            over the number of processes rows) that begins with batch k; closed at the end where it
            has a ``close``.
        num_examples: images of an epoch, repeats or tiles of an image counted each.
        train_images: images in the training set, for ``run.json``; None: those of an epoch.
        evaluate: maps a state and its step to metrics and images. Called on every process.
        overwrite: discard the run that the workdir holds.
        writers: told everything beside ``metrics.jsonl`` and TensorBoard; the caller's to close.
        build: makes a detector from a config: that of the run that ``config.init_from`` names, whose
            default boxes are compared with this one's.
        init_transforms: change the initial weights, in order, after what ``config.init_from`` names is
            loaded and before the optimiser's state exists. A resumed run applies none.
        policy: decides on learning rate and end of the run after every evaluation
            (``jdet.train.policy``); None: that of ``config.train.saturation`` or ``early_stop``, or none.
        checks: look at the run at steps of theirs, and change nothing (``jdet.train.checks``).
        class_defaults: for runs that are older than some key of a class (``Workdir``).
        outlook: what the run is a part of, for its progress.
        until: step at which the run is saved and interrupted, as by a signal; None: none.

    Raises:
        ConfigError: the config is invalid, the workdir is not for this run, or an evaluation does not
            return ``train.best_metric``.
        DataError: the stream ends, or raises it.
        jdet.train.checkpoints.checkpoint.CheckpointError: saving or restoring failed.
    """
    resolved = schedule.resolve(config, num_examples)
    mesh = mesh_lib.make_mesh(config)
    whole_rate = schedule.learning_rate(config.optimizer, resolved)
    rate, factors = budget.outside(config, resolved, whole_rate)
    params, stats = state.abstract_variables(detector, config, resolved.micro_batch)
    rules = optim.parameter_rules(config.optimizer, params)
    optimizer = optim.make_optimizer(config.optimizer, rate, params)
    policy = policy or early_stop.policy_of(config)
    if policy is not None and evaluate is None:
        raise ConfigError(
            "the policy of the run decides from evaluations, but there are none; give `evaluate`, or "
            "leave out `policy`, train.saturation.patience and train.early_stop.patience"
        )

    with contextlib.ExitStack() as stack:
        progress = Progress(resolved.steps, enabled=jax.process_index() == 0, outlook=outlook)
        stack.callback(progress.close)
        stop = stack.enter_context(StopRequest())
        transforms = [*init_transforms]
        old = Path(workdir).expanduser() / checkpoint.FOLDER
        if overwrite or broadcast.from_main(lambda: not checkpoint.steps_in(old)):
            # Before the workdir is touched: a source that does not fit must leave no trace there.
            plan = init_from.prepare(config, workdir, detector, params, stats, build, progress.say)
            # Those of a caller may load anything.
            if not any(getattr(each, "loads", True) for each in transforms):
                from_scratch.check(config, params, stats, plan)
            transforms = [*([plan] if plan else []), *transforms]
            del plan
        folder = open_together(
            workdir, config, num_examples, overwrite, progress.say, class_defaults
        )
        stack.callback(folder.close)
        checkpoints = stack.enter_context(
            checkpoint.Checkpoints(
                folder.path / checkpoint.FOLDER,
                config.train.keep,
                config.train.best_metric,
                progress.say,
                lowest=config.train.best_mode == "min",
            )
        )
        stack.enter_context(_full_disk(folder, checkpoints))
        progress.say(schedule.describe(resolved))
        progress.say(optim.describe_rules(rules))
        restored = _restore(checkpoints, config, detector, optimizer, rate, params, mesh)
        if restored is None:
            begin = state.create_state(detector, optimizer, mesh, config, transforms)
            metrics: dict[str, float] = {}
            progress.say(init_lib.announce(transforms, config.seed))
            origin = init_lib.records(transforms)
        else:
            begin, metrics = restored
            origin = init_lib.recorded_in(folder.record)
            progress.say(f"resuming from step {int(begin.step)} in {folder.path}")
            progress.say(f"this run began with {init_lib.summary(origin)}")
        transforms.clear()  # lets go of another run's weights
        start = int(begin.step)
        keep_until = None if restored is None else start
        decisions = Decisions(policy, folder.path / METRICS, keep_until)
        ended = start == resolved.steps or decisions.now.stop
        if folder.record.get("status") == "completed" and ended:
            progress.say(f"this run is complete: {start} steps, nothing left to do")
            known = folder.record.get("metrics", {}).items()
            metrics = {name: math.nan if x is None else x for name, x in known}
            return Result("completed", start, 0, metrics, 0.0, 0.0, begin)

        if restored is not None:
            if note := folder.check_split(config, resolved.devices, resolved.micro_batch):
                progress.say(note)
        outputs = [*stack.enter_context(writers_in(folder.path, keep_until)), *writers]
        outputs += stack.enter_context(loggers_in(folder.path, config))
        landscape = Landscape(
            config,
            lambda: make_probe(detector, whole_rate, mesh, config),
            folder.path / LANDSCAPE if jax.process_index() == 0 else None,
            keep_until,
        )
        stack.callback(landscape.close)
        cycle = Cycle(
            config,
            resolved,
            mesh,
            step=make_train_step(detector, optimizer, rate, mesh, config),
            evaluate=evaluate,
            decisions=decisions,
            checks=Checks(checks, folder.path / METRICS, keep_until),
            checkpoints=checkpoints,
            writers=outputs,
            landscape=landscape,
            progress=progress,
            stop=stop,
            until=until,
            factors=factors,
        )
        stream = stack.enter_context(DevicePrefetcher(train_stream(start), mesh))
        made_with = provenance.versions()
        split = dict(
            devices=resolved.devices,
            device_kind=mesh.devices.flat[0].device_kind,
            micro_batch=resolved.micro_batch,
        )
        folder.update(
            status="running",
            steps=resolved.steps,
            train_images=num_examples if train_images is None else train_images,
            resumed_at=start,
            init_transforms=origin,
            versions=made_with,
            stretches=provenance.stretches(
                folder.record.get("stretches", ()), start, made_with, **split
            ),
            **split,
        )
        try:
            result = cycle.run(begin, stream, metrics, restored is not None)
        except NotFinite as error:
            result = cycle.diverged(error, make_diagnosis(detector, mesh, config))
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            line = next(iter(str(error).splitlines()), "")
            with contextlib.suppress(OSError):  # of a disk that is full
                folder.finish(
                    "interrupted" if stopped else "failed", error=f"{type(error).__name__}: {line}"
                )
            raise
        folder.finish(
            result.status,
            step=result.step,
            metrics=result.metrics,
            images_per_second=result.images_per_second,
            data_wait=result.data_wait,
            peak_memory=device_memory.peak_memory(mesh.devices.flat),
            **({"decision": decisions.now._asdict()} if policy is not None else {}),
        )
    return result


def _restore(
    checkpoints: checkpoint.Checkpoints,
    config: ConfigDict,
    detector: Any,
    optimizer: Any,
    rate: Callable[[Any], Any],
    params: Any,
    mesh: Any,
) -> tuple[TrainState, dict[str, float]] | None:
    """The newest state of the run, as ``Checkpoints.restore`` gives it.

    Checkpoints of earlier versions hold a momentum of frozen parameters as well, which is left out.
    """
    expected = [state.abstract_state(detector, optimizer, mesh, config)]
    if not all(jax.tree.leaves(optim.trainable(config.optimizer, params))):
        older = optim.make_optimizer(config.optimizer, rate, params, whole=True)
        expected.append(state.abstract_state(detector, older, mesh, config))
    restored = checkpoints.restore(*expected)
    if restored is None:
        return None
    begin, metrics = restored
    opt_state = optim.drop_frozen(begin.opt_state, expected[0].opt_state)
    return begin._replace(opt_state=opt_state), metrics


@contextlib.contextmanager
def _full_disk(folder: Workdir, checkpoints: checkpoint.Checkpoints):
    """Says in words what filled up while metrics or images were written."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise checkpoint.CheckpointError(
            f"{what_is_full(error, folder.path)}, then start again; {checkpoints.what_is_left()}."
        ) from error
