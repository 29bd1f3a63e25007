"""The life of a run: set up or resume, train, evaluate, save, and end in good order.

The order at every step is fixed: evaluate the state → save it → take the step → log it. What is
evaluated and saved under step k is thus the state after k steps, and everything logged up to k is on
disk before the checkpoint of k counts.

The loop keeps one step queued behind the one the device works on, no more: that hides the work of
the host, and still a signal or a loss that is not finite is noticed within a step.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from jdet import __version__
from jdet.config import validate
from jdet.parallel import broadcast
from jdet.parallel import mesh as mesh_lib
from jdet.parallel.prefetch import DevicePrefetcher
from jdet.train import optim, schedule, state
from jdet.train.checkpoints import checkpoint, select
from jdet.train.diagnostics.landscape import Landscape
from jdet.train.init import init_from
from jdet.train.init import plan as init_plan
from jdet.train.preemption import StopRequest
from jdet.train.progress import Progress, Stopwatch
from jdet.train.step import Metrics, make_diagnosis, make_probe, make_train_step
from jdet.train.workdir import LANDSCAPE, Workdir, open_together
from jdet.train.writers import Writer, writers_in
from jdet.types import Batch, ConfigError, DataError, Evaluated, TrainState

Evaluate = Callable[[TrainState, int], Evaluated]


class Result(NamedTuple):
    """How a run ended.

    Attributes:
        status: "completed", "interrupted" or "diverged".
        step: optimiser steps that ``state`` has taken.
        exit_code: 0 when completed or asked to stop by SIGTERM, 130 after SIGINT, 1 when diverged.
        metrics: of the last evaluation; empty if there was none.
        images_per_second: training alone; 0 where fewer than two steps were taken.
        data_wait: share of that time spent waiting for input, 0 … 1.
        state: the last good state.
    """

    status: str
    step: int
    exit_code: int
    metrics: dict[str, float]
    images_per_second: float
    data_wait: float
    state: TrainState


def train(
    config: ConfigDict,
    workdir: str | Path,
    *,
    detector: Any,
    train_stream: Callable[[int], Iterable[Batch]],
    num_examples: int,
    evaluate: Evaluate | None = None,
    overwrite: bool = False,
    writers: Sequence[Writer] = (),
    build: Callable[[ConfigDict], Any] | None = None,
) -> Result:
    """Trains a detector in a folder, from the beginning or from where a run there was left.

    A run goes on exactly: on one device, the same weights come out bit for bit, whenever and however
    it was stopped in between.

    Args:
        config: complete config; it is not changed.
        workdir: folder of the run, made if it is not there.
        detector: Linen module with ``losses(batch, *, train) -> dict[str, Mean]``.
        train_stream: given k, an endless iterable of host-local numpy batches (``train.batch_size``
            over the number of processes rows) that begins with batch k; closed at the end where it
            has a ``close``.
        num_examples: images in the training set.
        evaluate: maps a state and its step to metrics and images. Called on every process.
        overwrite: discard the run that the workdir holds.
        writers: told everything beside ``metrics.jsonl`` and TensorBoard; the caller's to close.
        build: makes a detector from a config: that of the run that ``config.init_from`` names, whose
            default boxes are compared with this one's.

    Raises:
        ConfigError: the config cannot be, the workdir is not for this run, or an evaluation does not
            return ``train.best_metric``.
        DataError: the stream ends, or raises it.
        jdet.train.checkpoints.checkpoint.CheckpointError: saving or restoring failed.
    """
    validate(config)
    resolved = schedule.resolve(config, num_examples)
    mesh = mesh_lib.make_mesh(config)
    rate = schedule.learning_rate(config.optimizer, resolved)
    params, stats = state.abstract_variables(detector, config, resolved.micro_batch)
    rules = optim.parameter_rules(config.optimizer, params)
    optimizer = optim.make_optimizer(config.optimizer, rate, params)

    with contextlib.ExitStack() as stack:
        progress = Progress(resolved.steps, enabled=jax.process_index() == 0)
        stack.callback(progress.close)
        stop = stack.enter_context(StopRequest())
        plan = None
        old = Path(workdir) / checkpoint.FOLDER
        if overwrite or broadcast.from_main(lambda: not checkpoint.steps_in(old)):
            # Before the workdir is touched: a source that does not fit must leave no trace there.
            plan = init_from.prepare(config, workdir, detector, params, stats, build, progress.say)
        folder = open_together(workdir, config, num_examples, overwrite, progress.say)
        stack.callback(folder.close)
        checkpoints = stack.enter_context(
            checkpoint.Checkpoints(
                folder.path / checkpoint.FOLDER,
                config.train.keep,
                config.train.best_metric,
                progress.say,
            )
        )
        stack.enter_context(_full_disk(folder, checkpoints))
        progress.say(schedule.describe(resolved))
        progress.say(optim.describe_rules(rules))
        restored = checkpoints.restore(state.abstract_state(detector, optimizer, mesh, config))
        if restored is None:
            load = plan.load if plan else None
            begin, metrics = state.create_state(detector, optimizer, mesh, config, load), {}
            progress.say(init_plan.announce(plan, config.seed))
            origin = plan.record() if plan else None
            plan = load = None  # lets go of the source's weights
        else:
            begin, metrics = restored
            origin = folder.record.get("init_from")
            progress.say(f"resuming from step {int(begin.step)} in {folder.path}")
            progress.say(f"this run began with {init_plan.summary(origin)}")
        start = int(begin.step)
        if folder.record.get("status") == "completed" and start == resolved.steps:
            progress.say(f"this run is complete: {start} steps, nothing left to do")
            metrics = folder.record.get("metrics", {})
            return Result("completed", start, 0, metrics, 0.0, 0.0, begin)

        if restored is not None:
            if note := folder.check_split(config, resolved.devices, resolved.micro_batch):
                progress.say(note)
        keep_until = None if restored is None else start
        outputs = [*stack.enter_context(writers_in(folder.path, keep_until)), *writers]
        landscape = Landscape(
            config,
            lambda: make_probe(detector, rate, mesh, config),
            folder.path / LANDSCAPE if jax.process_index() == 0 else None,
            keep_until,
        )
        stack.callback(landscape.close)
        train_step = make_train_step(detector, optimizer, rate, mesh, config)
        run = _Run(
            config, resolved, train_step, evaluate, checkpoints, outputs, landscape, progress, stop
        )
        stream = stack.enter_context(DevicePrefetcher(train_stream(start), mesh))
        folder.update(
            status="running",
            steps=resolved.steps,
            resumed_at=start,
            init_from=origin,
            versions={"jdet": __version__, "jax": jax.__version__},
            devices=resolved.devices,
            device_kind=mesh.devices.flat[0].device_kind,
            micro_batch=resolved.micro_batch,
        )
        try:
            result = run.loop(begin, stream, metrics, restored is not None)
        except _NotFinite as error:
            result = run.diverged(error, make_diagnosis(detector, mesh, config))
        folder.finish(
            result.status,
            step=result.step,
            metrics=result.metrics,
            images_per_second=result.images_per_second,
            data_wait=result.data_wait,
        )
    return result


@contextlib.contextmanager
def _full_disk(folder: Workdir, checkpoints: checkpoint.Checkpoints):
    """Says in words that the disk filled up while metrics or images were written."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise checkpoint.CheckpointError(
            f"writing to {folder.path} failed: {error}\n{checkpoints.what_is_left()}"
        ) from error


class _InFlight(NamedTuple):
    """A step handed to the device: its number, input and metrics, and what a probe found before it."""

    step: int
    batch: Batch
    metrics: Metrics
    probed: Mapping[str, float]


class _NotFinite(Exception):
    """The loss or gradient of a step was not finite."""

    def __init__(self, failed: _InFlight, state: TrainState):
        super().__init__(failed.step)
        self.failed, self.state = failed, state


class _Run:
    """What the loop works with."""

    def __init__(
        self, config, resolved, step, evaluate, checkpoints, writers, landscape, progress, stop
    ):
        self.config, self.resolved = config, resolved
        self.step, self.evaluate = step, evaluate
        self.checkpoints, self.writers, self.landscape = checkpoints, writers, landscape
        self.progress, self.stop = progress, stop
        self.watch = Stopwatch()
        self.metrics: dict[str, float] = {}

    def loop(self, now, stream, metrics, restored) -> Result:
        """Trains to the last step or until asked to stop.

        Args:
            now: state to begin with.
            stream: of batches, the first one for the next step.
            metrics: of an evaluation of ``now``, if there was one.
            restored: ``now`` is on disk.
        """
        k = start = int(now.step)
        self.metrics = metrics
        saved = k if restored else None
        evaluated = k if metrics else None
        flight: _InFlight | None = None
        compiled: set[tuple[int, ...]] = set()
        while True:
            last, stopping = k == self.resolved.steps, self.stop.reached()
            judge = evaluated != k and not stopping and self._evaluation_due(k)
            save = saved != k and (judge or last or stopping or self._save_due(k))
            if flight is not None and (judge or save or last or stopping):
                self._settle(flight, now)
                flight = None
            if judge:
                with self.watch.paused():
                    self._judge(now, k)
                evaluated = k
            if save:
                with self.watch.paused():
                    self.checkpoints.save(k, now, self.metrics if evaluated == k else None)
                saved = k
            elif judge:  # saved when a signal came first, evaluated now
                self.checkpoints.add_metrics(k, self.metrics)
            if judge:  # after saving: with the name set right, the run goes on from here
                select.check_metric(self.config.train.best_metric, self.metrics)
            self.checkpoints.check()
            if last or stopping:
                break
            batch = self._next(stream, k, first=k == start)
            if batch is None:
                continue
            probed: Mapping[str, float] = {}
            if self.landscape.probes(k + 1):  # before the step, which takes the state away
                if flight is not None:
                    self._settle(flight, now)
                    flight = None
                with self.watch.paused():
                    probed = self.landscape.probe(now, batch)
            shape = batch.images.shape
            if shape in compiled:  # compiling moves constants; after that, nothing travels unasked
                with jax.transfer_guard_host_to_device("disallow"):
                    now, values = self.step(now, batch)
            else:
                with self.watch.paused():
                    now, values = self.step(now, batch)
                compiled.add(shape)
            k += 1
            if flight is not None:
                self._settle(flight, now)
            flight = _InFlight(k, batch, values, probed)
        return self._end(now, k, complete=last and not stopping)

    def _end(self, now: TrainState, k: int, complete: bool) -> Result:
        self.watch.pause()
        self.progress.close()
        if not complete:
            self.progress.say(f"{self.stop.name}: saving step {k}")
        self.checkpoints.wait()
        rates = self.watch.rates(self.resolved.batch_size)
        status = "completed" if complete else "interrupted"
        self.progress.say(f"{status} at step {k} of {self.resolved.steps}, {rates[0]:.1f} img/s")
        return Result(status, k, 0 if complete else self.stop.exit_code, self.metrics, *rates, now)

    def _evaluation_due(self, k: int) -> bool:
        if self.evaluate is None:
            return False
        if k == 0:
            return self.config.train.eval_at_start
        every = self.config.train.eval_every
        return k == self.resolved.steps or bool(every and k % every == 0)

    def _save_due(self, k: int) -> bool:
        return k > 0 and k % self.resolved.save_every == 0

    def _next(self, stream, k: int, first: bool) -> Batch | None:
        """The batch that leads from step k to the next; None where a signal came first."""
        with self.watch.waiting():
            while not stream.wait(0.2):
                if self._stopping_alone():
                    return None
        try:
            batch = next(stream)
        except StopIteration:
            raise DataError(
                f"the training stream ended before step {k}; it must be endless"
            ) from None
        except Exception:
            if self._stopping_alone():  # Ctrl-C goes to the processes of the input as well
                return None
            raise
        if first and len(batch.images) != self.resolved.batch_size:
            raise ConfigError(
                f"the training stream yields {len(batch.images)} images a step over all processes, "
                f"but train.batch_size={self.resolved.batch_size}"
            )
        return batch

    def _settle(self, flight: _InFlight, now: TrainState) -> None:
        """Waits for a step, counts it and logs it.

        Raises:
            _NotFinite: its loss or gradient was not.
        """
        values = {name: x.item() for name, x in jax.device_get(flight.metrics).items()}
        if not values.pop("finite"):
            raise _NotFinite(flight, now)
        k, size = flight.step, self.resolved.batch_size
        self.watch.step()
        self.watch.resume()  # from here on: the first step brought the compilation
        self.progress.advance(k, values["loss"], self.watch, size)
        self.landscape.record(k, values, flight.probed)
        if k == 1 or k % self.config.train.log_every == 0 or k == self.resolved.steps:
            speed, wait = self.watch.lap(size)
            # Norms of modules are the landscape's, and would come between the metrics.
            values = {x: v for x, v in values.items() if not x.startswith("grad_norm/")}
            values |= {"epoch": k / self.resolved.steps_per_epoch}
            if speed:
                values |= {"images_per_second": speed, "data_wait": wait}
            self.progress.log(k, values, speed, wait, self.watch)
            self._write(k, values)

    def _judge(self, now: TrainState, k: int) -> None:
        found = self.evaluate(now, k)
        self.metrics = {name: float(x) for name, x in found.metrics.items()}
        self._write(k, self.metrics)
        for writer in self.writers:
            writer.images(k, found.images)

    def diverged(self, error: _NotFinite, diagnose) -> Result:
        """Records where the loss stopped being finite; the checkpoints stay as they are."""
        k, last = error.failed.step, error.state
        values = jax.device_get(diagnose(last, error.failed.batch))
        values = {name: x.item() for name, x in values.items()}
        self._write(k, {"event": "diverged", **values})
        self.landscape.diverged(k, values)
        self.checkpoints.wait()
        saved = self.checkpoints.steps()
        kept = f"the last good checkpoint is step {saved[-1]}" if saved else "none was saved before"
        self.progress.close()
        self.progress.say(
            f"the loss or its gradient is not finite at step {k}; {kept}\n  "
            + "\n  ".join(f"{name} {value:.4g}" for name, value in values.items())
        )
        rates = self.watch.rates(self.resolved.batch_size)
        return Result("diverged", k - 1, 1, self.metrics, *rates, last)

    def _write(self, k: int, values: Mapping[str, Any]) -> None:
        for writer in self.writers:
            writer.scalars(k, values)

    def _stopping_alone(self) -> bool:
        return jax.process_count() == 1 and self.stop.requested
