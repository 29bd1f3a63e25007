"""One optimiser step as one compiled program, sharded over the mesh.

The program is ``jit(shard_map(…))``: every device runs the detector on its own images, and only
loss totals, gradients and statistics cross devices (``jdet.train.gradient``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from jdet.parallel.mesh import split_axes
from jdet.train import moments, optim
from jdet.train.diagnostics import sample_stats
from jdet.train.gradient import Gradient, loss_and_gradient
from jdet.train.partition import merge, split
from jdet.types import Batch, TrainState

Metrics = dict[str, jax.Array]


def make_train_step(
    detector: Any,
    optimizer: optax.GradientTransformationExtraArgs,
    schedule: Callable[[Any], Any],
    mesh: Mesh,
    config: ConfigDict,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Builds the compiled training step.

    Loss and gradient are those of ``jdet.train.gradient.loss_and_gradient``.

    With ``train.ema`` parameters and running statistics are averaged over the steps at one rate, so
    that the average is a network whose statistics are its own: the raw ones remember some ten steps,
    the average hundreds.

    A step whose loss or gradient is not finite changes nothing but ``state.finite``, and no later
    step changes anything either.

    Args:
        detector: Linen module with ``losses(batch, *, train) -> dict[str, Mean]``.
        optimizer: of ``jdet.train.optim.make_optimizer``, for the same config.
        schedule: step to learning rate, for the metrics.
        mesh: of the run.
        config: complete config.

    Returns:
        ``step(state, batch, lr_scale=1.0) -> (state, metrics)``. The old state is donated; ``lr_scale``
        is a float32 scalar, a factor of the learning rate. Metrics are float32 scalars ``loss``,
        ``loss/<part>``, ``lr``, ``grad_norm`` (by the parameters that train, before clipping) and the bool
        ``finite``, with ``landscape.every`` ``grad_norm/<module>`` down to ``landscape.depth``, and with
        ``train.sample_stats`` those of ``jdet.train.diagnostics.sample_stats``; they stay on device.
    """
    decay = config.train.ema
    depth = config.landscape.depth if config.landscape.every else 0

    def step(state: TrainState, batch: Batch, lr_scale: jax.Array) -> tuple[TrainState, Metrics]:
        found = _of_state(detector, state, batch, config, mesh)
        grad_norm = optax.tree.norm(found.gradient)
        finite = state.finite & jnp.isfinite(found.loss) & jnp.isfinite(grad_norm)

        # By this name jdet.profile knows what the update costs.
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(
                found.gradient, state.opt_state, state.params, lr_scale=lr_scale, finite=finite
            )
            keep = functools.partial(moments.keep, finite)
            params = keep(optax.apply_updates(state.params, updates), state.params)
            stats = keep(found.stats, state.stats)
            ema = state.ema
            if decay:
                # The usual warm-up of the average: early on it forgets the initial weights faster.
                rate = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
                latest = {"params": params, "stats": stats}
                ema = keep(jax.tree.map(lambda e, x: rate * e + (1 - rate) * x, ema, latest), ema)
            count = keep(state.step + 1, state.step)
        metrics = {
            **_losses(found),
            "lr": jnp.asarray(schedule(state.step), jnp.float32) * lr_scale,
            "grad_norm": grad_norm,
            **module_norms(found.gradient, depth),
            **(sample_stats.summarise(found.samples) if config.train.sample_stats else {}),
            "finite": finite,
        }
        return TrainState(count, params, stats, opt_state, ema, finite), metrics

    specs = (P(), P(split_axes(mesh)), P())
    sharded = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=(P(), P()))

    def scaled(state: TrainState, batch: Batch, lr_scale: Any = 1.0) -> tuple[TrainState, Metrics]:
        return sharded(state, batch, jnp.asarray(lr_scale, jnp.float32))

    return jax.jit(scaled, donate_argnums=0)


def make_diagnosis(
    detector: Any, mesh: Mesh, config: ConfigDict
) -> Callable[[TrainState, Batch], Metrics]:
    """Builds the program that finds where a loss stopped being finite.

    Args:
        detector: as in ``make_train_step``.
        mesh: of the run.
        config: complete config.

    Returns:
        ``diagnose(state, batch)``: ``loss``, ``loss/<part>`` and ``grad_norm/<module>`` for every
        top-level module that trains. Nothing is donated.
    """

    def diagnose(state: TrainState, batch: Batch) -> Metrics:
        found = _of_state(detector, state, batch, config, mesh)
        return {**_losses(found), **module_norms(found.gradient, 1)}

    specs = (P(), P(split_axes(mesh)))
    return jax.jit(jax.shard_map(diagnose, mesh=mesh, in_specs=specs, out_specs=P()))


def make_probe(
    detector: Any, schedule: Callable[[Any], Any], mesh: Mesh, config: ConfigDict
) -> Callable[..., Metrics]:
    """Builds the program that probes the loss along the gradient (Santurkar et al. 2018, sec. 3.1).

    From the parameters x with the gradient g of the loss it visits x - s · lr · g for every s of
    ``landscape.probe_steps``: the plain gradient at the learning rate of the step, without momentum,
    decay or factors of single parameters; frozen ones stay. Loss and gradient there are
    those of the training step, with the same batch, batch statistics and random numbers.

    Args:
        detector: as in ``make_train_step``.
        schedule: step to learning rate.
        mesh: of the run.
        config: complete config.

    Returns:
        ``probe(state, batch, lr_scale=1.0)``, float32 [S] each: ``loss`` there; ``change``, the L2 norm
        of the gradient there minus g; ``cosine`` between the two; ``smoothness``, ``change`` over the
        length of the way. What divides by a zero gradient or rate is nan. Nothing is donated.
    """

    def visit(
        state: TrainState, batch: Batch, start: Any, length: jax.Array
    ) -> tuple[Any, Metrics]:
        way = length * jnp.asarray(schedule(state.step), jnp.float32)
        own, others = split(state.params, optim.trainable(config.optimizer, state.params))
        params = merge(jax.tree.map(lambda x, g: x - way * g, own, start), others)
        moved = state._replace(params=params)
        found = _of_state(detector, moved, batch, config, mesh)
        here = found.gradient
        start = jax.tree.map(lambda g, new: jnp.where(length > 0, g, new), start, here)
        change = optax.tree.norm(optax.tree.sub(here, start))
        norm = optax.tree.norm(start)
        return start, {
            "loss": found.loss,
            "change": change,
            "cosine": jnp.asarray(optax.tree.vdot(here, start)) / (norm * optax.tree.norm(here)),
            "smoothness": change / (way * norm),
        }

    specs = (P(), P(split_axes(mesh)), P(), P())
    program = jax.jit(jax.shard_map(visit, mesh=mesh, in_specs=specs, out_specs=P()))
    return functools.partial(_look_ahead, program, config)


def _look_ahead(
    visit: Any, config: ConfigDict, state: TrainState, batch: Batch, lr_scale: float = 1.0
) -> Metrics:
    """Visits the way's beginning, for its gradient, and its other points, all with one program.

    A loop inside a program would be the shorter way to say it, but XLA computes the gradients of
    convolutions in loops dozens of times slower on CPUs (github.com/jax-ml/jax/issues/12868).
    """
    own, _ = split(state.params, optim.trainable(config.optimizer, state.params))
    start, _ = visit(state, batch, own, jnp.float32(0))
    lengths = [jnp.float32(length * lr_scale) for length in config.landscape.probe_steps]
    values = [visit(state, batch, start, length)[1] for length in lengths]
    return jax.tree.map(lambda *columns: jnp.stack(columns), *values)


def module_norms(tree: Any, depth: int, prefix: str = "grad_norm") -> Metrics:
    """L2 norm of every module of a parameter tree, down to a level.

    Args:
        tree: nested dicts of arrays; modules without any are left out.
        depth: 1: top-level modules; 2: and those inside them; … 0: none.
        prefix: of the names.

    Returns:
        Float32 scalars ``<prefix>/backbone``, ``<prefix>/backbone/block1``, …
    """
    norms: Metrics = {}
    if depth and isinstance(tree, Mapping):
        for name, inner in tree.items():
            if not jax.tree.leaves(inner):  # frozen
                continue
            norms[f"{prefix}/{name}"] = optax.tree.norm(inner)
            norms |= module_norms(inner, depth - 1, f"{prefix}/{name}")
    return norms


def _of_state(
    detector: Any, state: TrainState, batch: Batch, config: ConfigDict, mesh: Mesh
) -> Gradient:
    """Loss and gradient of a batch at a state, by what trains; runs inside ``shard_map``."""
    return loss_and_gradient(
        detector,
        state.params,
        state.stats,
        batch,
        step=state.step,
        config=config,
        mesh=mesh,
        wanted=optim.trainable(config.optimizer, state.params),
    )


def _losses(found: Gradient) -> Metrics:
    """The loss and its parts as metrics."""
    return {"loss": found.loss, **{f"loss/{name}": x for name, x in found.parts.items()}}
