"""Recipe arithmetic: from a config to steps, images per device and learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jdet.config import get_defaults
from jdet.parallel import mesh as mesh_lib
from jdet.types import ConfigError


class Policy(NamedTuple):
    """A learning rate that drops at epochs.

    Attributes:
        epochs: of the run.
        drops: epoch and factor of each drop.
    """

    epochs: float
    drops: tuple[tuple[float, float], ...]


POLICIES = {
    "normal": Policy(11, ((8, 0.1), (10, 0.1))),
    "long": Policy(18, ((11, 0.1), (14, 0.1), (17, 0.5))),
}
"""MegDet's (Peng et al. 2018, sec. 4). Over another number of epochs the drops keep their shares."""


SETTINGS = {
    "end_factor": ("cosine", "polynomial", "exponential"),
    "power": ("polynomial",),
    "hold": ("cosine", "polynomial", "exponential"),
    "from_start": ("cosine", "polynomial", "exponential"),
    "factors": ("step",),
}
"""Keys of the group ``optimizer`` that only some schedules read."""


class Resolved(NamedTuple):
    """The numbers that follow from a config, a number of training images and of devices.

    Attributes:
        steps: optimiser steps of the run.
        epochs: passes over the training images.
        steps_per_epoch: not necessarily whole.
        batch_size: images per optimiser step.
        devices: of all processes.
        accumulation: micro-batches per optimiser step.
        batch_per_device: images per optimiser step and device.
        micro_batch: images that a device processes at a time.
        bn_group: images that share statistics under ``sync_batch``.
        groups: teams of devices that share statistics, the first axis of the mesh.
        members: devices per team, the second axis.
        lr: at ``reference_batch`` images per step.
        reference_batch: 0: the learning rate does not depend on the batch.
        peak_lr: after linear scaling, at the end of the warm-up.
        warmup: steps.
        warmup_lr: learning rate of the first step of a warm-up.
        fall: step from which a "cosine", "polynomial" or "exponential" rate falls.
        boundaries: steps at which the learning rate drops ("step", "normal" and "long").
        factors: of the learning rate at each of them.
        save_every: steps between checkpoints.
    """

    steps: int
    epochs: float
    steps_per_epoch: float
    batch_size: int
    devices: int
    accumulation: int
    batch_per_device: int
    micro_batch: int
    bn_group: int
    groups: int
    members: int
    lr: float
    reference_batch: int
    peak_lr: float
    warmup: int
    warmup_lr: float
    fall: int
    boundaries: tuple[int, ...]
    factors: tuple[float, ...]
    save_every: int


def resolve(config: ConfigDict, num_examples: int, *, devices: int | None = None) -> Resolved:
    """Does the arithmetic of a recipe and refuses invalid settings.

    Args:
        config: complete config.
        num_examples: images of an epoch.
        devices: how many; None: those the config picks.

    Raises:
        ConfigError: a value is out of range, or batch, devices, accumulation and BatchNorm group do
            not divide.
    """
    train, optimizer = config.train, config.optimizer
    devices = len(mesh_lib.pick_devices(config)) if devices is None else devices
    _check_length(config, num_examples)
    micro_batch = mesh_lib.split_batch(config, devices)
    batch_per_device = micro_batch * train.accumulation
    group_size = config.parallel.bn_group_size
    groups, members = mesh_lib.bn_layout(micro_batch, devices, group_size)

    steps_per_epoch = num_examples / train.batch_size
    policy = POLICIES.get(optimizer.schedule)
    epochs = train.epochs or (policy.epochs if policy else 0)
    steps = _steps(config) or math.ceil(epochs * steps_per_epoch)
    peak_lr = optimizer.lr
    if optimizer.reference_batch:
        peak_lr *= train.batch_size / optimizer.reference_batch
    warmup, warmup_lr = _warm_up(optimizer, steps, steps_per_epoch, peak_lr)
    fall = _fall(optimizer, warmup, steps)
    boundaries, factors = _drops(optimizer, policy, warmup, steps)
    return Resolved(
        steps=steps,
        epochs=steps / steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        batch_size=train.batch_size,
        devices=devices,
        accumulation=train.accumulation,
        batch_per_device=batch_per_device,
        micro_batch=micro_batch,
        bn_group=group_size or devices * micro_batch,
        groups=groups,
        members=members,
        lr=optimizer.lr,
        reference_batch=optimizer.reference_batch,
        peak_lr=peak_lr,
        warmup=warmup,
        warmup_lr=warmup_lr,
        fall=fall,
        boundaries=boundaries,
        factors=factors,
        save_every=train.save_every or max(1, steps // 10),
    )


def _steps(config: ConfigDict) -> int:
    """Optimiser steps of a run whose length is given in steps; 0 where it is in epochs.

    Raises:
        ConfigError: ``train.length="fixed_samples"`` without steps or a batch to count them in.
    """
    train, reference = config.train, config.optimizer.reference_batch
    if train.length == "fixed_iters":
        return train.steps
    if not (train.steps and reference):
        raise ConfigError(
            f"train.length='fixed_samples' means as many images as in train.steps={train.steps} of "
            f"optimizer.reference_batch={reference} images; set both, or train.length='fixed_iters'"
        )
    return math.ceil(train.steps * reference / train.batch_size)


def _warm_up(
    optimizer: ConfigDict, steps: int, steps_per_epoch: float, peak_lr: float
) -> tuple[int, float]:
    """Steps of the warm-up and the learning rate at its start."""
    warmup = max(optimizer.warmup, math.ceil(optimizer.warmup_epochs * steps_per_epoch))
    if warmup >= steps:
        given = f"optimizer.warmup={optimizer.warmup}"
        if warmup > optimizer.warmup:
            given = f"optimizer.warmup_epochs={optimizer.warmup_epochs} ({warmup} steps)"
        raise ConfigError(
            f"{given} is not shorter than the run of {steps} steps; shorten it or train longer"
        )
    if optimizer.warmup_lr and not warmup:
        raise ConfigError(
            f"optimizer.warmup_lr={optimizer.warmup_lr:g} begins a warm-up, but there is none; set "
            "optimizer.warmup or optimizer.warmup_epochs"
        )
    # A batch below the reference has a peak below its rate; then there is nothing to warm up to.
    lowest = optimizer.warmup_lr or optimizer.warmup_start * peak_lr
    return warmup, min(lowest, peak_lr)


def _fall(optimizer: ConfigDict, warmup: int, steps: int) -> int:
    """The step from which a rate falls that falls all the time."""
    defaults = get_defaults().optimizer
    for key, schedules in SETTINGS.items():
        if optimizer[key] != defaults[key] and optimizer.schedule not in schedules:
            raise ConfigError(
                f"optimizer.{key}={optimizer[key]!r} is for optimizer.schedule="
                f"{' or '.join(map(repr, schedules))}, which is {optimizer.schedule!r}; leave it at "
                f"{defaults[key]!r}"
            )
    if optimizer.schedule == "exponential" and not optimizer.end_factor:
        raise ConfigError(
            f"optimizer.end_factor={optimizer.end_factor:g}: an exponential decay does not reach 0; set "
            "it to the share of the peak at the end of the run, such as 0.01"
        )
    if optimizer.from_start and optimizer.hold:
        raise ConfigError(
            f"optimizer.hold={optimizer.hold} keeps the peak after the warm-up, but "
            "optimizer.from_start=True lets the rate fall from step 0; set one of them"
        )
    fall = 0 if optimizer.from_start else warmup + optimizer.hold
    if fall >= steps:
        raise ConfigError(
            f"optimizer.hold={optimizer.hold} after {warmup} steps of warm-up leaves none of {steps} steps "
            "for the rate to fall; shorten it or train longer"
        )
    return fall


def _drops(
    optimizer: ConfigDict, policy: Policy | None, warmup: int, steps: int
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Steps at which the learning rate drops, and by which factors."""
    if policy:
        marks = tuple(epoch / policy.epochs for epoch, _ in policy.drops)
        factors = tuple(factor for _, factor in policy.drops)
        given, remedy = f"the epochs of {optimizer.schedule!r}", "train longer"
    elif optimizer.schedule == "step" and optimizer.boundaries:
        marks = tuple(optimizer.boundaries)
        if not all(isinstance(mark, int | float) for mark in marks):
            raise ConfigError(f"optimizer.boundaries={marks!r} must be numbers, such as (0.5, 0.8)")
        factors = tuple(optimizer.factors) or (optimizer.decay,) * len(marks)
        if len(factors) != len(marks) or not all(
            isinstance(factor, int | float) and 0 < factor <= 1e6 for factor in factors
        ):
            raise ConfigError(
                f"optimizer.factors={factors!r} must be a number above 0 for each of "
                f"optimizer.boundaries={marks!r}, or empty: optimizer.decay at each"
            )
        given = f"optimizer.boundaries={marks}"
        remedy = "values above 1 are steps, others fractions of the run"
    else:
        return (), ()
    boundaries = tuple(max(1, round(b * steps if b <= 1 else b)) for b in marks)
    rising = [warmup, *boundaries, steps]
    if rising != sorted(rising) or min(marks) <= 0:
        raise ConfigError(
            f"{given} come to steps {boundaries}, which must rise from the end of the warm-up "
            f"({warmup}) to the end of the run ({steps}); {remedy}"
        )
    return boundaries, factors


def _check_length(config: ConfigDict, num_examples: int) -> None:
    """Refuses a run without images or without a length; ``jdet.config`` has the ranges of single keys.

    Raises:
        ConfigError: names the keys.
    """
    train, optimizer = config.train, config.optimizer
    if num_examples < 1:
        raise ConfigError("the training set holds no images; check data.train")
    neither = not train.steps and not train.epochs and optimizer.schedule not in POLICIES
    if neither or (train.steps and train.epochs):
        raise ConfigError(
            f"train.steps={train.steps} and train.epochs={train.epochs}: "
            "set one of them, leave the other 0"
        )


def learning_rate(optimizer: ConfigDict, resolved: Resolved) -> Callable[[jax.Array], jax.Array]:
    """The learning rate as a function of the optimiser steps already taken.

    The peak is ``lr · batch_size / reference_batch``: k steps of N images and one of k · N change the
    weights with equal variance where the rate is k times as high (MegDet, Peng et al. 2018, sec. 3.1).
    A warm-up that rises after every step leads to it at step ``warmup``, in MegDet from the rate of the
    small batch (``warmup_lr``), else from ``warmup_start · peak``. From there the rate

    * "step": is multiplied by ``decay``, or by ``factors`` one after the other, at every boundary;
    * "normal", "long": by a policy's own factors at its epochs;
    * "constant": stays;
    * "cosine": follows half a cosine to ``end_factor · peak`` at the end of the run (Loshchilov & Hutter
      2017);
    * "polynomial": falls to it by ``(1 - done) ** power``, a straight line at power 1 (optax's
      ``polynomial_schedule``, MMEngine's ``PolyLR``);
    * "exponential": by the same factor at every step.

    The last three first stay ``hold`` steps at the peak. With ``from_start`` they count from step 0, and
    the warm-up leads to what they have come to when it ends (Detectron2's ``WarmupParamScheduler``).

    Args:
        optimizer: the group ``optimizer`` of a config.
        resolved: its arithmetic.

    Returns:
        A schedule as optax takes it: step (int scalar) to float32 scalar; works under jit.
    """
    peak, warmup = resolved.peak_lr, resolved.warmup

    def after_warmup(step: Any) -> Any:
        """Factor of the peak at a step, a whole number: float32 has no odd ones above 2²⁴."""
        factor = jnp.float32(1.0)
        if optimizer.schedule in SETTINGS["end_factor"]:
            passed = jnp.asarray(step - resolved.fall, jnp.float32)
            done, end = (
                jnp.clip(passed / (resolved.steps - resolved.fall), 0.0, 1.0),
                optimizer.end_factor,
            )
            if optimizer.schedule == "exponential":
                return jnp.float32(end) ** done
            left = (1.0 - done) ** optimizer.power
            if optimizer.schedule == "cosine":
                left = 0.5 * (1.0 + jnp.cos(jnp.pi * done))
            factor = end + (1.0 - end) * left if end else left
        for boundary, drop in zip(resolved.boundaries, resolved.factors):
            factor = jnp.where(step >= boundary, factor * drop, factor)
        return factor

    def schedule(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step)
        factor = after_warmup(step)
        if warmup:
            start = resolved.warmup_lr / peak
            rise = (after_warmup(warmup) if optimizer.from_start else 1.0) - start
            factor = jnp.where(
                step < warmup, start + rise * step.astype(jnp.float32) / warmup, factor
            )
        return peak * factor

    return schedule


def describe(resolved: Resolved) -> str:
    """The numbers of a run as text of a few lines, for the start of its log."""
    r = resolved
    per_device = f"{r.batch_per_device} on each of {r.devices} device(s)"
    if r.accumulation > 1:
        per_device += f" in {r.accumulation} micro-batches of {r.micro_batch}"
    scaled = f" = {r.lr:g} · {r.batch_size}/{r.reference_batch}" if r.reference_batch else ""
    warmup = f", warm-up of {r.warmup} steps from {r.warmup_lr:g}" if r.warmup else ""
    drops = f", drops at {', '.join(map(str, r.boundaries))}" if r.boundaries else ""
    if r.fall > r.warmup:
        drops += f", falls from step {r.fall}"
    rates = [r.peak_lr * math.prod(r.factors[: i + 1]) for i in range(len(r.factors))]
    epochs = [
        f"{rate:g} from epoch {step / r.steps_per_epoch:.1f}"
        for rate, step in zip(rates, r.boundaries)
    ]
    later = f"\n           {', '.join(epochs)}" if epochs else ""
    return (
        f"steps      {r.steps} ({r.epochs:.1f} epochs of {r.steps_per_epoch:.1f} steps)\n"
        f"batch      {r.batch_size} images: {per_device}\n"
        f"BatchNorm  {r.bn_group} images share statistics under sync_batch, "
        f"{r.micro_batch} under batch\n"
        f"lr         peak {r.peak_lr:g}{scaled}{warmup}{drops}{later}"
    )
