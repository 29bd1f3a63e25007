"""A run's length by time: its first steps are timed on this machine, and as many follow as fit.

The result stands in the config: ``train.steps`` and ``train.budget.step_seconds``, so that a stored config
says all of it, and a run that is resumed or repeated from it is not timed again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from jdet.parallel import broadcast
from jdet.parallel import mesh as mesh_lib
from jdet.parallel.prefetch import DevicePrefetcher
from jdet.train import optim, schedule, state
from jdet.train.step import make_train_step
from jdet.types import Batch, ConfigError

LEAST, MOST = 3, 20
"""Steps that are timed."""

LONG = 10.0, 0.02
"""Timing ends after so many seconds of steps, or this share of the budget where that is more."""

LONGEST = 1_000_000
"""Steps that a schedule is laid over while they are not known."""

FEWEST = 10
"""Steps of a run, at least."""

FEW = 300
"""Steps from which on a run from random weights begins to be worth its time."""


class Timing(NamedTuple):
    """What the first steps took.

    Attributes:
        step: seconds of a step, input included, without compilation.
        compiling: seconds that compiling took.
        spent: seconds of the whole timing.
        timed: steps that ``step`` is the mean of.
    """

    step: float
    compiling: float
    spent: float
    timed: int


def open_ended(config: ConfigDict) -> bool:
    """Whether the steps of a config are still to be found from its budget."""
    return config.train.budget.minutes > 0 and not config.train.budget.step_seconds


def settle(
    config: ConfigDict,
    stored: ConfigDict | None,
    detector: Any,
    batches: Callable[[int], Iterable[Batch]],
    num_examples: int,
) -> None:
    """Times the first steps of a run, writes down how many fit, and says so.

    Where the run has begun, its steps are taken; if its budget was another, or none, its workdir refuses
    that.
    All processes must call this together; the clock of process 0 counts.

    Args:
        config: whole and ``open_ended``; changed.
        stored: config of the run that is to go on; None: it begins.
        detector: of the run.
        batches: given k, the training batches from batch k on.
        num_examples: images of an epoch.

    Raises:
        ConfigError: fewer than ``FEWEST`` steps fit, or the config says the length of the run otherwise.
    """
    minutes = config.train.budget.minutes
    if config.train.epochs or not config.train.steps or config.train.length != "fixed_iters":
        raise ConfigError(
            f"train.budget.minutes={minutes:g} decides on train.steps; with train.steps="
            f"{config.train.steps}, train.epochs={config.train.epochs:g} and train.length="
            f"{config.train.length!r} something else does. Set train.steps=1000 (any number, until the "
            "steps are timed), train.epochs=0.0 and train.length='fixed_iters'"
        )
    if stored is not None:
        if stored.train.budget.step_seconds:
            _write(config, stored.train.steps, stored.train.budget.step_seconds)
        return
    timing = _timed(config, detector, batches, num_examples)
    free = 60 * minutes - (timing.spent if config.train.budget.counts == "all" else 0.0)
    steps = int(max(free, 0) / timing.step)
    if steps < FEWEST:
        needed = FEWEST * timing.step + 60 * minutes - free
        raise ConfigError(
            f"train.budget.minutes={minutes:g} has time for {steps} steps of {timing.step:.2g} s on this "
            f"machine, and {FEWEST} are the least; give {needed / 60 + 0.05:.1f} minutes or more "
            f"(1,000 steps take {1000 * timing.step / 60:.1f})"
        )
    _write(config, steps, timing.step)
    if jax.process_index() == 0:
        say = logging.info if steps >= FEW else logging.warning
        say("%s", _described(config, timing, num_examples))


def _timed(
    config: ConfigDict,
    detector: Any,
    batches: Callable[[int], Iterable[Batch]],
    num_examples: int,
) -> Timing:
    begun = time.monotonic()
    mesh = mesh_lib.make_mesh(config)
    long = config.copy_and_resolve_references()
    with long.unlocked():  # no warm-up is longer, whatever stands there until the steps are known
        long.train.steps = max(config.train.steps, LONGEST)
    resolved = schedule.resolve(long, num_examples)
    rate, factors = outside(config, resolved, schedule.learning_rate(config.optimizer, resolved))
    params, _ = state.abstract_variables(detector, config, resolved.micro_batch)
    optimizer = optim.make_optimizer(config.optimizer, rate, params)
    step = make_train_step(detector, optimizer, rate, mesh, config)
    now = state.create_state(detector, optimizer, mesh, config)
    assert factors is not None
    scale = placed(factors[0], mesh)
    seen: set[tuple[int, ...]] = set()
    seconds, compiling, timed = 0.0, 0.0, 0
    enough = max(LONG[0], LONG[1] * 60 * config.train.budget.minutes)
    with DevicePrefetcher(batches(0), mesh) as stream:
        while timed < MOST and (timed < LEAST or seconds < enough):
            start = time.monotonic()
            batch = next(stream)
            now, values = step(now, batch, scale)
            jax.block_until_ready(values)
            taken = time.monotonic() - start
            if batch.images.shape in seen:
                seconds, timed = seconds + broadcast.from_main(lambda: taken), timed + 1  # noqa: B023
            else:
                seen.add(batch.images.shape)
                compiling += taken
    spent = time.monotonic() - begun
    return Timing(*broadcast.from_main(lambda: (seconds / timed, compiling, spent, timed)))


def _write(config: ConfigDict, steps: int, seconds: float) -> None:
    """The steps, and what follows them: evaluations, warm-up, steps at the peak, and until mixing ends."""
    train, optimizer = config.train, config.optimizer
    with config.unlocked():
        optimizer.warmup = min(optimizer.warmup, steps // 10)
        hold = optimizer.hold * steps // train.steps
        optimizer.hold = min(hold, max(steps - optimizer.warmup - 1, 0))
        config.data.mix.stop = config.data.mix.stop * steps // train.steps
        if train.budget.evaluations:
            train.eval_every = -(-steps // train.budget.evaluations)
        train.steps, train.budget.step_seconds = steps, float(seconds)


def _described(config: ConfigDict, timing: Timing, num_examples: int) -> str:
    train, minutes = config.train, config.train.budget.minutes
    passes = train.steps * train.batch_size / num_examples
    counted = "counts" if train.budget.counts == "all" else "does not count"
    text = (
        f"Budget: {minutes:g} minutes are {train.steps:,} steps of {timing.step:.2g} s (mean of "
        f"{timing.timed}) and {train.batch_size} images, {passes:.1f} passes over {num_examples:,} "
        f"images; compiling took {timing.compiling:.0f} s, which {counted}; evaluations do not"
    )
    if train.steps < FEW:
        text += (
            f". From random weights {train.steps} steps teach little; {FEW} would take "
            f"{FEW * timing.step / 60:.1f} minutes"
        )
    return text


def outside(
    config: ConfigDict, resolved: schedule.Resolved, rate: Callable[[Any], Any]
) -> tuple[Callable[[Any], Any], np.ndarray | None]:
    """The learning rate as the step's program has it, and what it is multiplied with from outside.

    The program of a run with a budget does not know the number of steps: what was compiled to time it is
    the program that trains, and need not be compiled again where compiled programs are kept.

    Args:
        config: whole.
        resolved: its arithmetic.
        rate: step to learning rate.

    Returns:
        Without a budget the rate itself and None. With one the peak, whatever the step, and the factors
        of the steps, float32 [steps].
    """
    if not config.train.budget.minutes:
        return rate, None
    peak = resolved.peak_lr
    rates = np.asarray(
        rate(jnp.arange(resolved.steps)), np.float64
    )  # one number where it is constant
    factors = np.broadcast_to(rates / peak, (resolved.steps,))
    return lambda step: jnp.float32(peak), factors.astype(np.float32)


def placed(scale: Any, mesh: jax.sharding.Mesh) -> jax.Array:
    """A factor of the learning rate on every device, float32, as a step takes it."""
    value = np.float32(scale)
    return jax.make_array_from_callback((), mesh_lib.replicated(mesh), lambda _: value)
