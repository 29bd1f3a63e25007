"""The steps of a run: what happens at each of them, in a fixed order.

The order at every step is fixed: check the state → evaluate it → decide → save it → take the step → log it.
What is evaluated and saved under step k is thus the state after k steps, and everything logged up to k is
on disk before the checkpoint of k counts. The files of an evaluation are written while training goes on;
all are there when it ends.

The loop keeps one step queued behind the one the device works on, no more: that hides the work of
the host, and still a signal or a loss that is not finite is noticed within a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jdet.parallel.prefetch import DevicePrefetcher
from jdet.train.budget import placed
from jdet.train.checkpoints import select
from jdet.train.checkpoints.checkpoint import Checkpoints
from jdet.train.checks import Checks
from jdet.train.diagnostics.landscape import Landscape
from jdet.train.policy import Decisions
from jdet.train.preemption import StopRequest
from jdet.train.progress import Progress, Stopwatch
from jdet.train.schedule import Resolved
from jdet.train.step import Metrics
from jdet.train.writers import Writer
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


class InFlight(NamedTuple):
    """A step handed to the device: its number, input and metrics, and what a probe found before it."""

    step: int
    batch: Batch
    metrics: Metrics
    probed: Mapping[str, float]


class NotFinite(Exception):
    """The loss or gradient of a step was not finite."""

    def __init__(self, failed: InFlight, state: TrainState):
        super().__init__(failed.step)
        self.failed, self.state = failed, state


class Cycle:
    """The steps of a run, one after another."""

    def __init__(
        self,
        config: ConfigDict,
        resolved: Resolved,
        mesh: Mesh,
        *,
        step: Callable[..., tuple[TrainState, Metrics]],
        evaluate: Evaluate | None,
        decisions: Decisions,
        checks: Checks,
        checkpoints: Checkpoints,
        writers: Sequence[Writer],
        landscape: Landscape,
        progress: Progress,
        stop: StopRequest,
        until: int | None = None,
        factors: np.ndarray | None = None,
    ):
        """Stores the parts that the loop works with.

        Args:
            config: complete config.
            resolved: its arithmetic.
            mesh: of the run.
            step: of ``jdet.train.step.make_train_step``.
            evaluate: as in ``jdet.train.loop.train``.
            decisions: of the evaluations so far.
            checks: made beside the evaluations.
            checkpoints: of the run.
            writers: told what is logged and evaluated.
            landscape: records of the loss surface.
            progress: shown to people.
            stop: whether a signal asked to end the run.
            until: step at which the run is saved and interrupted; None: only a signal does that.
            factors: of the learning rate, step by step, where ``step`` itself has the peak
                (``jdet.train.budget.outside``); None: it has the rate.
        """
        self._metrics: dict[str, float] = {}  # of the last evaluation
        self._config, self._resolved, self._mesh = config, resolved, mesh
        self._step, self._evaluate, self._decisions = step, evaluate, decisions
        self._checkpoints, self._writers, self._landscape = checkpoints, writers, landscape
        self._progress, self._stop, self._until = progress, stop, until
        self._factors = factors
        self._checks = checks
        self._watch = Stopwatch()
        # Waits for the files of the last evaluation.
        self._written: Callable[[], None] = lambda: None
        self._unlogged: tuple[int, dict[str, Any]] | None = None  # the step settled last
        self._lr_scale = self._placed_scale()

    def run(
        self, now: TrainState, stream: DevicePrefetcher, metrics: dict[str, float], restored: bool
    ) -> Result:
        """Trains to the last step or until asked to stop.

        Args:
            now: state to begin with.
            stream: of batches, the first one for the next step.
            metrics: of an evaluation of ``now``, if there was one.
            restored: ``now`` is on disk.

        Raises:
            NotFinite: the loss or gradient of a step was not.
        """
        k = start = int(now.step)
        self._metrics = metrics
        saved = k if restored else None
        evaluated = k if metrics else None
        flight: InFlight | None = None
        compiled: set[tuple[int, ...]] = set()
        while True:
            last, stopping = self._complete(k), self._stop.reached() or k == self._until
            judge = evaluated != k and not stopping and self._evaluation_due(k)
            save = saved != k and (judge or last or stopping or self._save_due(k))
            check = not stopping and self._checks.due(k)
            if flight is not None and (judge or check or save or last or stopping):
                self._settle(flight, now)
                flight = None
            if check:
                with self._watch.paused():
                    self._check(now, k)
            if judge:
                with self._watch.paused():
                    self._judge(now, k)
                evaluated, last = k, self._complete(k)
                if last:  # by the policy: no step was known to be the last when it was settled
                    self._log()
            if save:
                with self._watch.paused():
                    if last:  # a run that is resumed from here evaluates no more
                        self._written()
                    self._checkpoints.save(k, now, self._metrics if evaluated == k else None)
                saved = k
            elif judge:  # saved when a signal came first, evaluated now
                self._checkpoints.add_metrics(k, self._metrics)
            if judge:  # after saving: with the name set right, the run goes on from here
                select.check_metric(self._config.train.best_metric, self._metrics)
            self._checkpoints.check()
            if last or stopping:
                break
            batch = self._next(stream, k, first=k == start)
            if batch is None:
                continue
            probed: Mapping[str, float] = {}
            if self._landscape.probes(k + 1):  # before the step, which takes the state away
                if flight is not None:
                    self._settle(flight, now)
                    flight = None
                with self._watch.paused():
                    probed = self._landscape.probe(now, batch, self._decisions.now.lr_scale)
            shape, scale = batch.images.shape, self._scale(k)
            if shape in compiled:  # compiling moves constants; after that, nothing travels unasked
                with jax.transfer_guard_host_to_device("disallow"):
                    now, values = self._step(now, batch, *scale)
            else:
                with self._watch.paused():
                    now, values = self._step(now, batch, *scale)
                compiled.add(shape)
            k += 1
            if flight is not None:
                self._settle(flight, now)
            flight = InFlight(k, batch, values, probed)
        return self._end(now, k, complete=last and not stopping)

    def _end(self, now: TrainState, k: int, complete: bool) -> Result:
        self._watch.pause()
        self._progress.close()
        if not complete:
            self._progress.say(f"{self._stop.name}: saving step {k}")
        self._checkpoints.wait()
        self._written()
        rates = self._watch.rates(self._resolved.batch_size)
        status = "completed" if complete else "interrupted"
        self._progress.say(f"{status} at step {k} of {self._resolved.steps}, {rates[0]:.1f} img/s")
        if complete and self._decisions.now.stop:
            self._progress.say(self._decisions.now.reason)
        return Result(
            status, k, 0 if complete else self._stop.exit_code, self._metrics, *rates, now
        )

    def _complete(self, k: int) -> bool:
        return k == self._resolved.steps or self._decisions.now.stop

    def _evaluation_due(self, k: int) -> bool:
        if self._evaluate is None:
            return False
        if k == 0:
            return self._config.train.eval_at_start
        every = self._config.train.eval_every
        return k == self._resolved.steps or bool(every and k % every == 0)

    def _save_due(self, k: int) -> bool:
        return k > 0 and k % self._resolved.save_every == 0

    def _next(self, stream: DevicePrefetcher, k: int, first: bool) -> Batch | None:
        """The batch that leads from step k to the next; None where a signal came first."""
        with self._watch.waiting():
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
        if first and len(batch.images) != self._resolved.batch_size:
            raise ConfigError(
                f"the training stream yields {len(batch.images)} images per step over all processes, "
                f"but train.batch_size={self._resolved.batch_size}"
            )
        return batch

    def _settle(self, flight: InFlight, now: TrainState) -> None:
        """Waits for a step, counts it and logs it.

        Raises:
            NotFinite: its loss or gradient was not.
        """
        values = {name: x.item() for name, x in jax.device_get(flight.metrics).items()}
        if not values.pop("finite"):
            raise NotFinite(flight, now)
        k, size = flight.step, self._resolved.batch_size
        self._watch.step()
        self._watch.resume()  # from here on: the first step brought the compilation
        self._progress.advance(k, values["loss"], self._watch, size)
        self._landscape.record(k, values, flight.probed)
        self._unlogged = k, values
        if k == 1 or k % self._config.train.log_every == 0 or k == self._resolved.steps:
            self._log()

    def _log(self) -> None:
        """Logs the step that was settled last, once."""
        if self._unlogged is None:
            return
        (k, values), self._unlogged = self._unlogged, None
        speed, wait = self._watch.lap(self._resolved.batch_size)
        # Norms of modules are the landscape's, and would come between the metrics.
        values = {x: v for x, v in values.items() if not x.startswith("grad_norm/")}
        values |= {"epoch": k / self._resolved.steps_per_epoch}
        if speed:
            values |= {"images_per_second": speed, "data_wait": wait}
        self._progress.log(k, values, speed, wait, self._watch)
        self._write(k, values)

    def _judge(self, now: TrainState, k: int) -> None:
        assert self._evaluate is not None
        found = self._evaluate(now, k)
        self._written = found.wait
        self._metrics = {name: float(x) for name, x in found.metrics.items()}
        self._write(k, self._metrics)
        for writer in self._writers:
            writer.images(k, found.images)
        if self._decisions.add(k, self._metrics):
            decided = self._decisions.now
            self._lr_scale = self._placed_scale()
            self._write(k, {"event": "decision", **decided._asdict()})
            if not decided.stop:
                self._progress.say(f"step {k}: lr × {decided.lr_scale:g}, {decided.reason}")

    def _scale(self, k: int) -> tuple[jax.Array, ...]:
        """The factor of the learning rate from step k to the next."""
        if self._factors is None:
            return self._lr_scale
        return (placed(self._factors[k] * self._decisions.now.lr_scale, self._mesh),)

    def _check(self, now: TrainState, k: int) -> None:
        for name, said in self._checks.look(now, k):
            # Others than the training step's of the same name.
            values = {
                x if isinstance(value, str) else f"{name}/{x}": value
                for x, value in said.values.items()
            }
            self._write(k, {"event": name, **values})
            for line in said.lines:
                self._progress.say(f"step {k}: {line}")

    def _placed_scale(self) -> tuple[jax.Array, ...]:
        """The factor of the learning rate on every device, for the step; none where none is decided."""
        return (placed(self._decisions.now.lr_scale, self._mesh),) if self._decisions.any else ()

    def diverged(
        self, error: NotFinite, diagnose: Callable[[TrainState, Batch], Metrics]
    ) -> Result:
        """Records where the loss stopped being finite; the checkpoints stay as they are."""
        k, last = error.failed.step, error.state
        values = jax.device_get(diagnose(last, error.failed.batch))
        values = {name: x.item() for name, x in values.items()}
        self._write(k, {"event": "diverged", **values})
        self._landscape.diverged(k, values)
        self._checkpoints.wait()
        saved = self._checkpoints.steps()
        kept = f"the last good checkpoint is step {saved[-1]}" if saved else "none was saved before"
        self._progress.close()
        self._progress.say(
            f"the loss or its gradient is not finite at step {k}; {kept}\n  "
            + "\n  ".join(f"{name} {value:.4g}" for name, value in values.items())
        )
        for line in self._checks.diverged(k):
            self._progress.say(line)
        rates = self._watch.rates(self._resolved.batch_size)
        return Result("diverged", k - 1, 1, self._metrics, *rates, last)

    def _write(self, k: int, values: Mapping[str, Any]) -> None:
        for writer in self._writers:
            writer.scalars(k, values)

    def _stopping_alone(self) -> bool:
        return jax.process_count() == 1 and self._stop.requested
