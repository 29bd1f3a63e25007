"""Size of the gradient in every layer at given weights: what a calibration of initial weights goes by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from jdet.nn import observe, randomness
from jdet.nn.remat import Remat
from jdet.parallel.mesh import AXES
from jdet.train import state
from jdet.train.checkpoints.manifest import path_text
from jdet.train.gradient import call_losses, make_gradient, step_key
from jdet.types import Batch, ConfigError

Statistic = Callable[[Any, Any, Batch], dict[str, jax.Array]]
"""Maps parameters, running statistics and a global batch to a float32 scalar by path of every kernel."""


def make_statistic(detector: Any, mesh: Mesh, config: ConfigDict) -> Statistic:
    """The statistic of ``config.calibration``, compiled once.

    * "batch_grad": mean square of the entries of the gradient of the whole batch.
    * "per_example": the same for each image alone, then the mean over images.
    * "positionwise": for every position of a layer's output the mean square of the inputs that it reads
      times the mean square of the signal that comes back to it; the mean over positions and images. This is
      definition 1 of the paper taken literally where a kernel is used in many places.

    The network runs as in training, but drops nothing at random. With the reference signal "gaussian" the
    sum of the network's outputs times standard normal numbers takes the place of the loss.

    Args:
        detector: Linen module; for "gaussian" its ``__call__`` gives the outputs.
        mesh: of the run.
        config: complete config.

    Raises:
        ConfigError: the detector has no outputs to give a signal to.
    """
    settings = config.calibration
    if settings.reference_signal == "gaussian" and not callable(detector):
        raise ConfigError(
            "config.calibration.reference_signal='gaussian' starts at the outputs of the network, and "
            f"config.model.name={config.model.name!r} has no __call__(images, *, train) that gives them; "
            "take 'loss'"
        )
    detector = _without_remat(detector)
    if settings.statistic == "positionwise":
        program = _compiled(_positionwise(detector, config), mesh)
    elif settings.statistic == "per_example":
        program = _per_example(detector, mesh, config)
    elif settings.reference_signal == "loss":
        gradient = make_gradient(detector, mesh, config)
        squares = jax.jit(mean_squares)

        def program(params, stats, batch):
            return squares(gradient(params, stats, batch).gradient)
    else:
        program = _compiled(_batch_gradient(detector, config), mesh)

    def statistic(params: Any, stats: Any, batch: Batch) -> dict[str, jax.Array]:
        with randomness.nothing_dropped():  # counts at the first call, which traces
            return program(params, stats, batch)

    return statistic


def mean_squares(tree: Any) -> dict[str, jax.Array]:
    """Mean square of every kernel, or of its gradient, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        name: jnp.mean(jnp.square(leaf.astype(jnp.float32)))
        for path, leaf in leaves
        if (name := path_text(path)).endswith("/kernel") and leaf.ndim >= 2
    }


def _compiled(function: Callable[..., Any], mesh: Mesh, *more: Any) -> Callable[..., Any]:
    specs = (P(), P(), P(AXES), *more)
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P()))


def _signal(detector: Any, config: ConfigDict, *, alone: bool = False) -> Callable[..., jax.Array]:
    """This device's share of what is differentiated, a function of (params, stats, batch).

    Args:
        detector: as in ``make_statistic``.
        config: complete config.
        alone: the loss is divided by the weights of this device's rows alone.
    """
    key = step_key(config.seed, 0)

    def loss(params, stats, batch):
        means, _ = call_losses(detector, state.variables(params, stats), batch, key)
        weights = {name: jax.lax.stop_gradient(mean.weight) for name, mean in means.items()}
        if not alone:
            weights = jax.lax.psum(weights, AXES)
        parts = {name: mean.total / jnp.maximum(weights[name], 1) for name, mean in means.items()}
        return sum(parts.values(), jnp.float32(0))

    def gaussian(params, stats, batch):
        with randomness.images(batch.index):
            outputs, _ = detector.apply(
                state.variables(params, stats),
                batch.images,
                train=True,
                mutable=["batch_stats"],
                rngs=randomness.streams(key),
            )
        total = jnp.float32(0)
        for i, x in enumerate(jax.tree.leaves(outputs)):
            if isinstance(x, jax.Array):  # priors are not the network's
                keys = jax.vmap(jax.random.fold_in, (None, 0))(
                    jax.random.fold_in(key, i), batch.index
                )
                noise = jax.vmap(lambda key, x=x: jax.random.normal(key, x.shape[1:]))(keys)
                total = total + jnp.sum(x.astype(jnp.float32) * noise)
        return total

    return loss if config.calibration.reference_signal == "loss" else gaussian


def _batch_gradient(detector: Any, config: ConfigDict) -> Callable[..., Any]:
    signal = _signal(detector, config)

    def run(params, stats, batch):
        own = jax.lax.pcast(params, AXES, to="varying")
        return mean_squares(jax.lax.psum(jax.grad(signal)(own, stats, batch), AXES))

    return run


def _per_example(detector: Any, mesh: Mesh, config: ConfigDict) -> Callable[..., Any]:
    """One image of every device at a time, in a loop outside of the compiled program."""
    signal = _signal(detector, config, alone=True)

    def run(params, stats, batch, i):
        own = jax.lax.pcast(params, AXES, to="varying")
        row = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i, 1), batch)
        return jax.lax.pmean(mean_squares(jax.grad(signal)(own, stats, row)), AXES)

    program = _compiled(run, mesh, P())

    def each(params, stats, batch):
        rows = len(batch.index) // mesh.size
        found = [program(params, stats, batch, jnp.int32(i)) for i in range(rows)]
        return jax.tree.map(lambda *x: sum(x) / rows, *found)

    return each


def _positionwise(detector: Any, config: ConfigDict) -> Callable[..., Any]:
    signal = _signal(detector, config)

    def run(params, stats, batch):
        own = jax.lax.pcast(params, AXES, to="varying")

        def outputs():
            with observe.layers() as seen:
                signal(own, stats, batch)
            return {path: [call.output for call in calls] for path, calls in seen.items()}

        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(outputs))
        zeros = jax.lax.pcast(zeros, AXES, to="varying")

        def observed(added):
            with observe.layers(added) as seen:
                total = signal(own, stats, batch)
            return total, {path: [call.power for call in calls] for path, calls in seen.items()}

        back, powers = jax.grad(observed, has_aux=True)(zeros)
        return {path: _mean_product(powers[path], back[path]) for path in back}

    return run


def _mean_product(powers: Any, signals: Any) -> jax.Array:
    """Mean over calls and positions of the mean squares of inputs and of signals, multiplied."""
    parts = [
        power * jnp.mean(jnp.square(signal.astype(jnp.float32)), axis=-1)
        for power, signal in zip(powers, signals)
    ]
    positions = sum(part.size for part in parts)
    return jax.lax.pmean(sum(jnp.sum(part) for part in parts) / positions, AXES)


def _without_remat(module: Any) -> Any:
    """A detector that computes nothing again, so that all its layers can be seen."""
    changed: Mapping[str, Any] = {
        field: Remat() if field == "remat" else _without_remat(getattr(module, field))
        for field in ("remat", *getattr(module, "parts", ()))
        if hasattr(module, field)
    }
    return module.clone(**changed) if changed else module
