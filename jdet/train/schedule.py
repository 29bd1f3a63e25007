"""Recipe arithmetic: what a config comes to in steps, pictures per device and learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jdet.train import sharding
from jdet.types import ConfigError

SCHEDULES = ("step", "cosine", "constant")


class Resolved(NamedTuple):
    """The numbers that follow from a config, a number of training pictures and of devices.

    Attributes:
        steps: optimiser steps of the run.
        epochs: passes over the training pictures.
        steps_per_epoch: not necessarily whole.
        batch_size: pictures per optimiser step.
        devices: of all processes.
        accumulation: micro-batches per optimiser step.
        batch_per_device: pictures per optimiser step and device.
        micro_batch: pictures a device sees at a time.
        bn_group: pictures that share statistics under ``sync_batch``.
        groups: teams of devices that share statistics, the first axis of the mesh.
        members: devices per team, the second axis.
        peak_lr: after linear scaling, at the end of the warm-up.
        warmup: steps.
        boundaries: steps at which the learning rate drops ("step" schedule).
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
    peak_lr: float
    warmup: int
    boundaries: tuple[int, ...]
    save_every: int


def resolve(config: ConfigDict, num_examples: int, *, devices: int | None = None) -> Resolved:
    """Does the arithmetic of a recipe and refuses what cannot be.

    Args:
        config: complete config.
        num_examples: pictures in the training set.
        devices: how many; None: those the config picks.

    Raises:
        ConfigError: a value is out of range, or batch, devices, accumulation and BatchNorm group do
            not divide.
    """
    train, optimizer = config.train, config.optimizer
    devices = len(sharding.pick_devices(config)) if devices is None else devices
    _check_ranges(config, num_examples)
    if train.batch_size % (devices * train.accumulation):
        raise ConfigError(
            f"train.batch_size={train.batch_size} does not divide by {devices} device(s) × "
            f"train.accumulation={train.accumulation}; "
            f"take a multiple of {devices * train.accumulation}"
        )
    batch_per_device = train.batch_size // devices
    micro_batch = batch_per_device // train.accumulation
    group_size = config.parallel.bn_group_size
    groups, members = sharding.bn_layout(micro_batch, devices, group_size)

    steps_per_epoch = num_examples / train.batch_size
    steps = train.steps or math.ceil(train.epochs * steps_per_epoch)
    peak_lr = optimizer.lr
    if optimizer.reference_batch:
        peak_lr *= train.batch_size / optimizer.reference_batch
    boundaries = ()
    if optimizer.schedule == "step":
        boundaries = tuple(max(1, round(b * steps if b <= 1 else b)) for b in optimizer.boundaries)
    if optimizer.warmup >= steps:
        raise ConfigError(
            f"optimizer.warmup={optimizer.warmup} is not shorter than the run of {steps} steps; "
            "shorten it or train longer"
        )
    marks = [optimizer.warmup, *boundaries, steps]
    if boundaries and (marks != sorted(marks) or min(optimizer.boundaries) <= 0):
        raise ConfigError(
            f"optimizer.boundaries={tuple(optimizer.boundaries)} come to steps {boundaries}, which "
            f"must rise from the end of the warm-up ({optimizer.warmup}) to the end of the run "
            f"({steps}); values above 1 are steps, others fractions of the run"
        )
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
        peak_lr=peak_lr,
        warmup=optimizer.warmup,
        boundaries=boundaries,
        save_every=train.save_every or max(1, steps // 10),
    )


def _check_ranges(config: ConfigDict, num_examples: int) -> None:
    """Raises ConfigError for the first value the arithmetic cannot be done with."""
    train, optimizer = config.train, config.optimizer
    if num_examples < 1:
        raise ConfigError("the training set holds no pictures; check data.train")
    if bool(train.steps) == bool(train.epochs):
        raise ConfigError(
            f"train.steps={train.steps} and train.epochs={train.epochs}: "
            "set one of them, leave the other 0"
        )
    positive = "train.batch_size", "train.accumulation", "optimizer.lr", "optimizer.decay"
    not_negative = (
        "train.steps",
        "train.epochs",
        "train.eval_every",
        "train.save_every",
        "optimizer.reference_batch",
        "optimizer.bias_lr",
        "optimizer.warmup",
    )
    for key in (*positive, *not_negative):
        group, name = key.split(".")
        value = config[group][name]
        if not math.isfinite(value) or value < 0 or (key in positive and value == 0):
            remedy = "above 0" if key in positive else "0 or more"
            raise ConfigError(f"{key}={value!r} must be {remedy}")
    if not 0 <= optimizer.momentum < 1:
        raise ConfigError(f"optimizer.momentum={optimizer.momentum!r} must be in [0, 1)")
    if optimizer.schedule not in SCHEDULES:
        raise ConfigError(
            f"optimizer.schedule={optimizer.schedule!r} must be one of {', '.join(SCHEDULES)}"
        )


def learning_rate(optimizer: ConfigDict, resolved: Resolved) -> Callable[[jax.Array], jax.Array]:
    """The learning rate as a function of the optimiser steps already taken.

    A linear warm-up from ``warmup_start · peak`` leads to the peak at step ``warmup``. From there
    the rate is multiplied by ``decay`` at every boundary ("step"), follows half a cosine down to
    zero at the end of the run ("cosine"; Loshchilov & Hutter 2017), or stays ("constant").

    Args:
        optimizer: the group ``optimizer`` of a config.
        resolved: its arithmetic.

    Returns:
        A schedule as optax takes it: step (int scalar) to float32 scalar; works under jit.
    """
    peak, warmup = resolved.peak_lr, resolved.warmup

    def schedule(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        if optimizer.schedule == "step":
            drops = sum((step >= b).astype(jnp.float32) for b in resolved.boundaries)
            factor = jnp.float32(optimizer.decay) ** drops
        elif optimizer.schedule == "cosine":
            done = jnp.clip((step - warmup) / (resolved.steps - warmup), 0.0, 1.0)
            factor = 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        else:
            factor = jnp.float32(1.0)
        if warmup:
            ramp = optimizer.warmup_start + (1.0 - optimizer.warmup_start) * step / warmup
            factor = jnp.where(step < warmup, ramp, factor)
        return peak * factor

    return schedule


def describe(resolved: Resolved) -> str:
    """The numbers of a run as text of a few lines, for the start of its log."""
    r = resolved
    per_device = f"{r.batch_per_device} on each of {r.devices} device(s)"
    if r.accumulation > 1:
        per_device += f" in {r.accumulation} micro-batches of {r.micro_batch}"
    drops = f", drops at {', '.join(map(str, r.boundaries))}" if r.boundaries else ""
    warmup = f", warm-up of {r.warmup} steps" if r.warmup else ""
    return (
        f"steps      {r.steps} ({r.epochs:.1f} epochs of {r.steps_per_epoch:.1f} steps)\n"
        f"batch      {r.batch_size} pictures: {per_device}\n"
        f"BatchNorm  {r.bn_group} pictures share statistics under sync_batch, "
        f"{r.micro_batch} under batch\n"
        f"lr         peak {r.peak_lr:g}{warmup}{drops}"
    )
