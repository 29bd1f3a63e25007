"""Running statistics measured again with the finished weights (precise batch norm).

The running statistics of training average over the last ten steps or so, while the weights move.
Before an evaluation the statistics of the weights at hand can be measured instead, over many batches
of the training data (Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", sec. 3).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from jdet.ops.vma import varying
from jdet.parallel.mesh import AXES, replicated, to_global
from jdet.train.gradient import call_losses, step_key
from jdet.types import Batch, ConfigError, DataError, Moments


class _Pool(NamedTuple):
    """Statistics of the batches so far.

    Attributes:
        batches: int32 scalar, how many.
        layers: nested dicts of ``Moments`` of all images: mean and biased variance float32 [C], count
            float32 scalar, numbers per channel.
    """

    batches: Any
    layers: Any


def make_precise_bn(
    detector: Any, mesh: Mesh, config: ConfigDict
) -> Callable[[Mapping[str, Any], Iterable[Batch]], dict[str, Any]]:
    """Builds the measurement of ``config.eval.precise_bn`` batches of ``train.batch_size`` images.

    Activations are normalised as in training: by the same groups of images, and in micro-batches
    with ``train.accumulation``. The result is the mean and unbiased variance of everything that entered
    a norm layer, the population's; an average of the variances of the groups would be smaller.

    Args:
        detector: as in ``jdet.train.step.make_train_step``.
        mesh: of the run.
        config: complete config.

    Returns:
        ``measure(variables, batches) -> variables``: "params" as they are, "batch_stats" with mean and
        variance of batch norms replaced; frozen norms stay. ``variables`` are on the mesh, ``batches``
        host-local as for ``to_global``; the first so many are taken. It raises ConfigError where the
        network has no batch norms, and DataError where there are too few batches.
    """
    wanted, parts = config.eval.precise_bn, config.train.accumulation

    def see(variables: Any, micro: Batch, seen: jax.Array) -> Any:
        """Moments of one micro-batch, after ``seen`` others."""
        key = step_key(config.seed, seen // parts)
        _, updates = call_losses(detector, variables, micro, key, mutable=["moments"])
        return _over_devices(updates.get("moments", {}))

    def split(batch: Batch) -> Batch:
        return jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)

    def nothing(variables: Any, batch: Batch) -> _Pool:
        micro = jax.tree.map(lambda x: x[0], split(batch))
        shapes = jax.eval_shape(lambda: see(variables, micro, jnp.int32(0)))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)
        return _Pool(jnp.int32(0), zeros)

    def add(variables: Any, batch: Batch, pool: _Pool) -> _Pool:
        def one(pool: _Pool, micro: Batch) -> tuple[_Pool, None]:
            return _merge(pool, see(variables, micro, pool.batches)), None

        return jax.lax.scan(one, pool, split(batch))[0]

    def program(function: Callable[..., _Pool], specs: tuple[P, ...], **options: Any) -> Any:
        sharded = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P())
        return jax.jit(sharded, out_shardings=replicated(mesh), **options)

    begin = program(nothing, (P(), P(AXES)))
    update = program(add, (P(), P(AXES), P()), donate_argnums=2)

    def measure(variables: Mapping[str, Any], batches: Iterable[Batch]) -> dict[str, Any]:
        pool, taken = None, 0
        for batch in itertools.islice(batches, wanted):
            placed = to_global(batch, mesh)
            pool = begin(variables, placed) if pool is None else pool
            if not jax.tree.leaves(pool.layers):
                raise ConfigError(
                    f"eval.precise_bn={wanted} measures the statistics of batch norms, but the network "
                    "has none; set it to 0"
                )
            pool = update(variables, placed, pool)
            taken += 1
        if pool is None or taken < wanted:
            raise DataError(
                f"the training stream ended after {taken} of eval.precise_bn={wanted} batches"
            )
        stats = _replace(variables["batch_stats"], pool.layers)
        return {**variables, "batch_stats": stats}

    return measure


def _over_devices(seen: Mapping[str, Any]) -> Any:
    """The moments that batch norms stored, per layer, as ``Moments`` [C] of the whole batch."""
    if "seen" in seen:
        return _of_layer(seen["seen"])
    return {name: _over_devices(inner) for name, inner in seen.items()}


def _of_layer(calls: Sequence[Moments]) -> Moments:
    """Moments [G, C] of every call of a layer as one, over the groups of all devices."""
    counts = [jnp.asarray(call.count, jnp.float32) for call in calls]
    total = jnp.asarray(sum(count * len(call.mean) for call, count in zip(calls, counts)))
    apart = tuple(sorted(varying(total)))  # images, and so devices, differ in size
    usual = jax.lax.pmean(total, apart) if apart else total

    def mean(values: Sequence[jax.Array]) -> jax.Array:
        local = jnp.asarray(sum(n * jnp.sum(x, 0) for x, n in zip(values, counts))) / usual
        axes = tuple(sorted(varying(local)))
        return jax.lax.pmean(local, axes) if axes else local

    middle = mean([call.mean for call in calls])
    var = mean([call.var + (call.mean - middle) ** 2 for call in calls])
    teams = math.prod(jax.lax.axis_size(axis) for axis in varying(calls[0].mean))
    return Moments(middle, var, usual * teams)


def _merge(pool: _Pool, layers: Any) -> _Pool:
    """The pool with one batch more, which may be of another shape (Chan et al. 1979)."""

    def merge(old: Moments, new: Moments) -> Moments:
        count = old.count + new.count
        share = new.count / count
        apart = new.mean - old.mean
        mean = old.mean + share * apart
        var = old.var + share * (new.var - old.var + (1 - share) * apart**2)
        return Moments(mean, var, count)

    return _Pool(pool.batches + 1, jax.tree.map(merge, pool.layers, layers, is_leaf=_is_moments))


def _replace(stats: Mapping[str, Any], layers: Any) -> dict[str, Any]:
    """The statistics, with those of the measured layers replaced."""
    if isinstance(layers, Moments):
        unbiased = layers.var * (layers.count / jnp.maximum(layers.count - 1, 1))
        return {**stats, "mean": layers.mean, "var": unbiased}
    return {
        name: _replace(inner, layers[name]) if name in layers else inner
        for name, inner in stats.items()
    }


def _is_moments(x: Any) -> bool:
    return isinstance(x, Moments)
