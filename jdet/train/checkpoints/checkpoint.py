"""Checkpoints: written in the background, committed last, verified before they are read.

A checkpoint is a folder named after its step with two parts, so that inference need not know the
optimiser: ``model`` (params, stats, ema) and ``optimizer`` (step, opt_state), and a manifest. It
gets its name when all of that is on disk: a run killed while saving leaves every earlier checkpoint
and nothing that looks like one. A folder that does not agree with its manifest is damaged, and the
one before it is used.
"""

from __future__ import annotations

import concurrent.futures
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from jdet import atomic_files
from jdet.parallel import broadcast
from jdet.train.checkpoints import manifest
from jdet.train.checkpoints.select import FOLDER, best_step, parse_step, steps_in
from jdet.types import TrainState


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message names the folder and the remedy."""


class Weights(NamedTuple):
    """The parts of a checkpoint that inference needs, as numpy arrays.

    Attributes:
        step: optimiser steps taken.
        params: parameters.
        stats: running statistics; empty where the model has none.
        ema: moving average of both, ``{"params", "stats"}``, or None.
    """

    step: int
    params: Any
    stats: Any
    ema: Any


class Checkpoints:
    """The checkpoints of one run: the newest ``keep`` and the best are kept.

    Use as a context manager; leaving it waits for the save that is under way.
    """

    def __init__(
        self,
        directory: str | Path,
        keep: int = 2,
        best_metric: str = "",
        notify: Callable[[str], None] = print,
        *,
        lowest: bool = False,
    ):
        """Opens the folder and removes what an interrupted save or removal left there.

        Args:
            directory: of the checkpoints; made if it is not there.
            keep: newest checkpoints to keep.
            best_metric: the metric whose largest value makes a checkpoint the best; "": the first.
            notify: told about damaged checkpoints.
            lowest: its smallest value does, not the largest.
        """
        self._directory = Path(directory).absolute()
        self._keep = keep
        self._best_metric, self._lowest = best_metric, lowest
        self._notify = notify
        self._pending: tuple[int, concurrent.futures.Future] | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._main = jax.process_index() == 0
        _silence_orbax()
        if self._main:
            self._directory.mkdir(parents=True, exist_ok=True)
            for pattern in ("*.writing*", "*.removed"):
                for leftover in self._directory.glob(pattern):
                    shutil.rmtree(leftover, ignore_errors=True)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            self.wait()
        except CheckpointError:
            if kind is None:  # else the error that ends the run says more
                raise
        finally:
            self._thread.shutdown()

    def steps(self) -> list[int]:
        """Steps of the checkpoints, oldest first."""
        return steps_in(self._directory)

    def save(
        self, step: int, state: TrainState, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Copies the state and writes it in the background.

        Args:
            step: names the checkpoint.
            state: may be donated as soon as this returns.
            metrics: of an evaluation of this state, main one first.

        Raises:
            CheckpointError: there is a checkpoint of this step, or this or the last save failed.
        """
        self.wait()
        path = self._directory / str(step)
        if path.exists():
            raise CheckpointError(
                f"{path} exists and is never overwritten; train in another workdir or discard this "
                "run with --overwrite"
            )
        parts = _parts(state)
        needed = sum(x.nbytes for x in jax.tree.leaves(parts))
        free = shutil.disk_usage(self._directory).free
        if free < needed:
            raise self._failure(
                step, f"{needed / 2**20:.1f} MiB to write, {free / 2**20:.1f} MiB free"
            )
        about = manifest.describe(parts, metrics or {})
        try:
            written = ocp.save_checkpointables_async(str(_unsealed(path)), parts)
        except Exception as error:
            raise self._failure(step, error) from error
        self._pending = step, self._thread.submit(self._commit, path, written, about)

    def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds the metrics of a later evaluation to a checkpoint without changing its arrays.

        Args:
            step: of a checkpoint that is there.
            metrics: of an evaluation of its state, main one first.

        Raises:
            CheckpointError: they could not be written, or the last save failed.
        """
        self.wait()
        if not self._main:
            return
        try:
            manifest.add_metrics(self._directory / str(step), metrics)
        except (OSError, manifest.Damaged) as error:
            raise self._failure(step, error) from error
        self._prune()

    def check(self) -> None:
        """Raises CheckpointError if a save in the background has failed; returns at once."""
        if self._pending is not None and self._pending[1].done():
            self.wait()

    def wait(self) -> None:
        """Blocks until nothing is being written.

        Raises:
            CheckpointError: the save failed; earlier checkpoints are as they were.
        """
        if self._pending is None:
            return
        (step, future), self._pending = self._pending, None
        try:
            future.result()
        except Exception as error:
            raise self._failure(step, error) from error

    def _commit(self, path: Path, written: Any, about: dict[str, Any]) -> None:
        """Waits for the arrays, makes them a checkpoint, and removes those not to be kept."""
        written.result()
        if not self._main:
            return
        manifest.seal(_unsealed(path), about)
        # All of it is on disk before it gets its name, and the name before another is removed: else
        # a power cut could leave the new one empty and the old one gone.
        atomic_files.sync_tree(_unsealed(path))
        _unsealed(path).rename(path)
        atomic_files.sync(self._directory)
        self._prune()

    def _prune(self) -> None:
        """Removes the checkpoints that are neither among the newest nor the best."""
        steps = self.steps()
        best = best_step(self._directory, steps, self._best_metric, lowest=self._lowest)
        keep = {*steps[-self._keep :], best}
        for step in steps:
            if step not in keep:
                # Renamed first: a half-removed folder must not look like a checkpoint.
                old = self._directory / str(step)
                shutil.rmtree(old.rename(old.with_name(f"{step}.removed")), ignore_errors=True)

    def _failure(self, step: int, reason: Any) -> CheckpointError:
        remedy = "Make room on that disk or allow writing there, then start again"
        if isinstance(reason, manifest.Damaged):
            remedy = "The file system did not keep what was written; take a workdir on another one"
        return CheckpointError(
            f"saving step {step} to {self._directory} failed: {_first_line(reason)}\n"
            f"{remedy}; {self.what_is_left()}."
        )

    def what_is_left(self) -> str:
        """From where the run can go on."""
        steps = self.steps()
        return f"checkpoints of steps {steps} are intact" if steps else "no checkpoint was saved"

    def restore(self, *expected: TrainState) -> tuple[TrainState, dict[str, float]] | None:
        """The newest readable state.

        A damaged checkpoint is renamed to ``<step>.damaged``, so that its step can be saved again, but
        only where an older one is read instead: else the next start would find none and begin at step 0.

        Args:
            *expected: shapes and shardings of the state, as from ``abstract_state``; what the state may
                look like instead, in checkpoints of earlier versions, comes after what it does now.

        Returns:
            State and the metrics stored with it, or None where there is no checkpoint at all.

        Raises:
            ConfigError: the checkpoint belongs to another model or optimiser; the paths that differ
                are listed.
            CheckpointError: there are checkpoints and none can be read, or not as they are.
        """
        chosen = broadcast.from_main(lambda: self._newest_readable([*map(_parts, expected)]))
        if chosen is None:
            return None
        step, metrics, which = chosen
        abstract = expected[which]
        read = _read(self._directory / str(step), _parts(abstract))
        state = abstract._replace(**read["model"], **read["optimizer"])
        finite = jax.device_put(np.bool_(True), abstract.finite.sharding)
        return state._replace(finite=finite), metrics

    def _newest_readable(
        self, expected: Sequence[dict[str, Any]]
    ) -> tuple[int, dict[str, float], int] | None:
        """Step and metrics of the checkpoint to restore, and which of the parts expected it has.

        Damaged ones that are newer are set aside.
        """
        steps, damaged = self.steps(), []
        for step in reversed(steps):
            path = self._directory / str(step)
            try:
                about, which = manifest.verify_fit(path, *expected)
            except manifest.Damaged as error:
                self._notify(f"checkpoint {path} is damaged ({error}); using the one before it")
                damaged.append(path)
                continue
            for path in damaged:
                path.rename(_unused(path.with_name(f"{path.name}.damaged")))
            return step, about["metrics"], which
        if steps:
            raise CheckpointError(
                f"none of the checkpoints of steps {steps} in {self._directory} can be read; put back "
                "a copy of one, or discard the run with --overwrite"
            )
        return None


def load_for_inference(
    workdir: str | Path,
    step: int | str | None = None,
    best_metric: str = "",
    notify: Callable[[str], None] = print,
    *,
    lowest: bool = False,
) -> Weights:
    """Reads the weights of a run, independent of the devices on which it was trained.

    Args:
        workdir: of the run.
        step: which checkpoint; "best": the one with the best metric (the newest where none was
            evaluated); "latest" or None: the newest that can be read. See ``parse_step``.
        best_metric: as in ``Checkpoints``.
        notify: told when a damaged checkpoint is passed over.
        lowest: as in ``Checkpoints``.

    Raises:
        ConfigError: no checkpoint can be meant by ``step``.
        CheckpointError: there is no such checkpoint, or it cannot be read.
    """
    step = parse_step(step)
    _silence_orbax()
    directory = Path(workdir).absolute() / FOLDER
    steps = steps_in(directory)
    if not steps:
        raise CheckpointError(
            f"there is no checkpoint in {directory}; --workdir must name the folder of a training run"
        )
    if step == "best":
        step = best_step(directory, steps, best_metric, lowest=lowest)
    if step is not None and step not in steps:
        raise CheckpointError(f"{directory} has no checkpoint of step {step}; it has {steps}")
    for candidate in reversed(steps) if step is None else [step]:
        path = directory / str(candidate)
        try:
            parts, _ = _load(path, {"model": None})
        except manifest.Damaged as error:
            if step is not None:
                raise CheckpointError(f"checkpoint {path} is damaged: {error}") from error
            notify(f"checkpoint {path} is damaged ({error}); using the one before it")
            continue
        return Weights(candidate, **parts["model"])
    raise CheckpointError(f"none of the checkpoints of steps {steps} in {directory} can be read")


def load_like(path: Path, state: TrainState) -> TrainState:
    """Reads a whole checkpoint as numpy arrays with the shapes of a state.

    Raises:
        ConfigError: it is of another model or optimiser.
        CheckpointError: it is damaged or cannot be read.
    """
    _silence_orbax()
    try:
        parts, _ = _load(path, _parts(state))
    except manifest.Damaged as error:
        raise CheckpointError(f"checkpoint {path} is damaged: {error}") from error
    return state._replace(**parts["model"], **parts["optimizer"])


def _first_line(reason: Any) -> str:
    return next(iter(str(reason).strip().splitlines()), type(reason).__name__)


def _parts(state: TrainState) -> dict[str, Any]:
    """The state as the parts of a checkpoint."""
    return {
        "model": {"params": state.params, "stats": state.stats, "ema": state.ema},
        "optimizer": {"step": state.step, "opt_state": state.opt_state},
    }


def _load(path: Path, parts: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads parts of a checkpoint (None: as they are) as numpy arrays, with what was written beside them.

    Raises:
        ConfigError: a part is not like that given.
        manifest.Damaged: the folder is not what was written.
    """
    about, _ = manifest.verify_fit(path, parts)
    stored = ocp.checkpointables_metadata(str(path)).metadata
    like = {n: stored[n] if tree is None else tree for n, tree in parts.items()}
    return _read(path, {n: _numpy_like(tree) for n, tree in like.items()}), about


def _read(path: Path, like: dict[str, Any]) -> dict[str, Any]:
    """The parts of a checkpoint that is whole, as arrays like those of ``like``.

    Raises:
        CheckpointError: orbax cannot read it all the same.
    """
    try:
        return ocp.load_checkpointables(str(path), like)
    except Exception as error:
        causes: list[BaseException] = [error]
        while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
            causes.append(cause)
        raise CheckpointError(
            f"checkpoint {path} is whole but cannot be read: {_first_line(causes[-1])}; move the run to a "
            "folder with a plain name, or read it with the versions it was written with (run.json)"
        ) from error


def _numpy_like(tree: Any) -> Any:
    """Numpy arrays of the shapes in orbax's metadata."""
    return jax.tree.map(
        lambda x: np.empty(x.shape, x.dtype), tree, is_leaf=lambda x: hasattr(x, "shape")
    )


def _unsealed(path: Path) -> Path:
    """Where a checkpoint is written; its final name comes last, so what bears that is complete."""
    return path.with_name(path.name + ".writing")


def _unused(path: Path) -> Path:
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{path.stem}.damaged{number}")
    return path


def _not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


def _silence_orbax() -> None:
    """Keeps orbax's log of its failures off the terminal: the exceptions say it in a line."""
    logging.getLogger("absl").addFilter(_not_orbax)
