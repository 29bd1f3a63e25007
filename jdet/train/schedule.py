"""Recipe arithmetic: from a config to steps, images per device and learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

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
    boundaries: tuple[int, ...]
    factors: tuple[float, ...]
    save_every: int


def resolve(config: ConfigDict, num_examples: int, *, devices: int | None = None) -> Resolved:
    """Does the arithmetic of a recipe and refuses invalid settings.

    Args:
        config: complete config.
        num_examples: images in the training set.
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
    steps = train.steps or math.ceil(epochs * steps_per_epoch)
    peak_lr = optimizer.lr
    if optimizer.reference_batch:
        peak_lr *= train.batch_size / optimizer.reference_batch
    warmup, warmup_lr = _warm_up(optimizer, steps, steps_per_epoch, peak_lr)
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
        boundaries=boundaries,
        factors=factors,
        save_every=train.save_every or max(1, steps // 10),
    )


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
        factors = (optimizer.decay,) * len(marks)
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
    small batch (``warmup_lr``), else from ``warmup_start · peak``. From there the rate is multiplied by
    ``decay`` at every boundary ("step"), by a policy's own factors at its epochs ("normal", "long"),
    follows half a cosine down to zero at the end of the run ("cosine"; Loshchilov & Hutter 2017), or
    stays ("constant").

    Args:
        optimizer: the group ``optimizer`` of a config.
        resolved: its arithmetic.

    Returns:
        A schedule as optax takes it: step (int scalar) to float32 scalar; works under jit.
    """
    peak, warmup = resolved.peak_lr, resolved.warmup

    def schedule(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        factor = jnp.float32(1.0)
        if optimizer.schedule == "cosine":
            done = jnp.clip((step - warmup) / (resolved.steps - warmup), 0.0, 1.0)
            factor = 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        for boundary, drop in zip(resolved.boundaries, resolved.factors):
            factor = jnp.where(step >= boundary, factor * drop, factor)
        if warmup:
            start = resolved.warmup_lr / peak
            factor = jnp.where(step < warmup, start + (1.0 - start) * step / warmup, factor)
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
