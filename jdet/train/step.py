"""One optimiser step as one compiled program, sharded over the mesh.

The program is ``jit(shard_map(…))``: every device runs the detector on its own images, and only
loss totals, gradients and statistics cross devices. A loss is a sum and a weight; both are added up
over devices and micro-batches before the one division, so that the result does not depend on how
the batch is split.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from jdet.ops.vma import varying
from jdet.parallel.mesh import AXES
from jdet.train.diagnostics import sample_stats
from jdet.types import Batch, Mean, TrainState

Metrics = dict[str, jax.Array]


def make_train_step(
    detector: Any,
    optimizer: optax.GradientTransformation,
    schedule: Callable[[Any], Any],
    mesh: Mesh,
    config: ConfigDict,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Builds the compiled training step.

    The loss is the sum over the detector's parts of ``total / max(weight, 1)``, with total and
    weight summed over the whole batch (``train.loss_norm = "global"``) or divided on every device
    and micro-batch and then averaged ("per_device", as Caffe does).

    With ``train.accumulation`` above 1 the rows of every device are cut into micro-batches. The
    global weights are needed before the first gradient, so a first pass asks the detector for the
    weights alone; they follow from the assignment, and the network is dropped from that pass where
    they do not depend on it. BatchNorm sees micro-batches as they are, and its running statistics
    follow them one by one.

    With ``train.ema`` parameters and running statistics are averaged over the steps at one rate, so
    that the average is a network whose statistics are its own: the raw ones remember some ten steps,
    the average hundreds.

    A step whose loss or gradient is not finite changes nothing but ``state.finite``, and no later
    step changes anything either.

    Args:
        detector: Linen module with ``losses(batch, *, train) -> dict[str, Mean]``.
        optimizer: optax transformation.
        schedule: step to learning rate, for the metrics.
        mesh: of the run.
        config: complete config.

    Returns:
        ``step(state, batch) -> (state, metrics)``. The old state is donated. Metrics are float32
        scalars ``loss``, ``loss/<part>``, ``lr``, ``grad_norm`` (before clipping) and the bool
        ``finite``, with ``landscape.every`` ``grad_norm/<module>`` down to ``landscape.depth``, and with
        ``train.sample_stats`` those of ``jdet.train.diagnostics.sample_stats``; they stay on device.
    """
    decay = config.train.ema
    depth = config.landscape.depth if config.landscape.every else 0

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        loss, parts, grads, stats, found = _loss_and_gradient(detector, state, batch, config, mesh)
        grad_norm = optax.tree.norm(grads)
        finite = state.finite & jnp.isfinite(loss) & jnp.isfinite(grad_norm)

        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if decay:
            # The usual warm-up of the average: early on it forgets the initial weights faster.
            rate = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
            latest = {"params": params, "stats": stats}
            ema = jax.tree.map(lambda e, x: rate * e + (1 - rate) * x, ema, latest)
        new = TrainState(state.step + 1, params, stats, opt_state, ema)
        new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state._replace(finite=True))
        metrics = {
            "loss": loss,
            **{f"loss/{name}": value for name, value in parts.items()},
            "lr": jnp.asarray(schedule(state.step), jnp.float32),
            "grad_norm": grad_norm,
            **module_norms(grads, depth),
            **(sample_stats.summarise(found) if config.train.sample_stats else {}),
            "finite": finite,
        }
        return new._replace(finite=finite), metrics

    sharded = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(AXES)), out_specs=(P(), P()))
    return jax.jit(sharded, donate_argnums=0)


def make_diagnosis(
    detector: Any, mesh: Mesh, config: ConfigDict
) -> Callable[[TrainState, Batch], Metrics]:
    """Builds the program that says where a loss stopped being finite.

    Args:
        detector: as in ``make_train_step``.
        mesh: of the run.
        config: complete config.

    Returns:
        ``diagnose(state, batch)``: ``loss``, ``loss/<part>`` and ``grad_norm/<module>`` for every
        top-level module of the parameters. Nothing is donated.
    """

    def diagnose(state: TrainState, batch: Batch) -> Metrics:
        loss, parts, grads, *_ = _loss_and_gradient(detector, state, batch, config, mesh)
        return {
            "loss": loss,
            **{f"loss/{name}": value for name, value in parts.items()},
            **module_norms(grads, 1),
        }

    return jax.jit(jax.shard_map(diagnose, mesh=mesh, in_specs=(P(), P(AXES)), out_specs=P()))


def make_probe(
    detector: Any, schedule: Callable[[Any], Any], mesh: Mesh, config: ConfigDict
) -> Callable[[TrainState, Batch], Metrics]:
    """Builds the program that looks ahead along the gradient (Santurkar et al. 2018, sec. 3.1).

    From the parameters x with the gradient g of the loss it visits x - s · lr · g for every s of
    ``landscape.probe_steps``: the plain gradient at the learning rate of the step, without momentum,
    decay or factors of single parameters. Loss and gradient there are those of the training step, with
    the same batch, batch statistics and random numbers.

    Args:
        detector: as in ``make_train_step``.
        schedule: step to learning rate.
        mesh: of the run.
        config: complete config.

    Returns:
        ``probe(state, batch)``, float32 [S] each: ``loss`` there; ``change``, the L2 norm of the
        gradient there minus g; ``cosine`` between the two; ``smoothness``, ``change`` over the length
        of the way. What divides by a zero gradient or rate is nan. Nothing is donated.
    """

    def visit(
        state: TrainState, batch: Batch, start: Any, length: jax.Array
    ) -> tuple[Any, Metrics]:
        way = length * jnp.asarray(schedule(state.step), jnp.float32)
        params = jax.tree.map(lambda x, g: x - way * g, state.params, start)
        moved = state._replace(params=params)
        loss, _, here, *_ = _loss_and_gradient(detector, moved, batch, config, mesh)
        start = jax.tree.map(lambda g, new: jnp.where(length > 0, g, new), start, here)
        change = optax.tree.norm(optax.tree.sub(here, start))
        norm = optax.tree.norm(start)
        return start, {
            "loss": loss,
            "change": change,
            "cosine": jnp.asarray(optax.tree.vdot(here, start)) / (norm * optax.tree.norm(here)),
            "smoothness": change / (way * norm),
        }

    specs = (P(), P(AXES), P(), P())
    program = jax.jit(jax.shard_map(visit, mesh=mesh, in_specs=specs, out_specs=P()))
    return functools.partial(_look_ahead, program, tuple(config.landscape.probe_steps))


def _look_ahead(visit: Any, lengths: tuple[float, ...], state: TrainState, batch: Batch) -> Metrics:
    """Visits the way's beginning, for its gradient, and its other points, all with one program.

    A loop inside a program would be the shorter way to say it, but a slow one on CPUs (``_unroll``).
    """
    start, _ = visit(state, batch, state.params, jnp.float32(0))
    values = [visit(state, batch, start, jnp.float32(length))[1] for length in lengths]
    return jax.tree.map(lambda *columns: jnp.stack(columns), *values)


def module_norms(tree: Any, depth: int, prefix: str = "grad_norm") -> Metrics:
    """L2 norm of every module of a parameter tree, down to a level.

    Args:
        tree: nested dicts of arrays.
        depth: 1: top-level modules; 2: and those inside them; … 0: none.
        prefix: of the names.

    Returns:
        Float32 scalars ``<prefix>/backbone``, ``<prefix>/backbone/block1``, …
    """
    norms: Metrics = {}
    if depth and isinstance(tree, Mapping):
        for name, inner in tree.items():
            norms[f"{prefix}/{name}"] = optax.tree.norm(inner)
            norms |= module_norms(inner, depth - 1, f"{prefix}/{name}")
    return norms


def _loss_and_gradient(
    detector: Any, state: TrainState, batch: Batch, config: ConfigDict, mesh: Mesh
) -> tuple[jax.Array, dict[str, jax.Array], Any, Any, Any]:
    """Loss, parts, gradient, new statistics and samples of the whole batch; runs inside ``shard_map``."""
    count = config.train.accumulation
    per_device = config.train.loss_norm == "per_device"
    counting = config.train.sample_stats
    # Own copies of the parameters per device: gradients stay local until they are summed once.
    params = jax.lax.pcast(state.params, AXES, to="varying")
    stats = state.stats
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    key = jax.random.fold_in(key, jax.lax.axis_index(AXES))

    def forward(params, stats, batch, index):
        """Loss parts of one micro-batch, the statistics after it, and its samples if asked for."""
        means, updates = detector.apply(
            {"params": params, "batch_stats": stats},
            batch,
            train=True,
            method="losses",
            mutable=["batch_stats", sample_stats.COLLECTION] if counting else ["batch_stats"],
            rngs={"dropout": jax.random.fold_in(key, index)},
        )
        means = {name: Mean(m.total, jax.lax.stop_gradient(m.weight)) for name, m in means.items()}
        found = updates.get(sample_stats.COLLECTION, {})
        return means, updates.get("batch_stats", stats), found

    def share(means, weights):
        """What this micro-batch adds to each loss part, on this device."""
        if weights is None:
            weights = {name: m.weight for name, m in means.items()}
            if not per_device:
                weights = _sum(weights)
        return {name: m.total / jnp.maximum(weights[name], 1.0) for name, m in means.items()}

    def gradient(stats, batch, index, weights):
        def loss(params):
            means, new_stats, found = forward(params, stats, batch, index)
            parts = jax.tree.map(_vary, share(means, weights))
            return sum(parts.values()), (parts, new_stats, jax.tree.map(_vary, found))

        grads, (parts, stats, found) = jax.grad(loss, has_aux=True)(params)
        return grads, parts, stats, found

    if count == 1:
        grads, parts, stats, found = gradient(stats, batch, 0, None)
    else:
        micro = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
        indices = jnp.arange(count)
        scan = functools.partial(jax.lax.scan, unroll=_unroll(mesh, count))

        def weigh(_, slot):
            batch, index = slot
            means, *_ = forward(params, stats, batch, index)
            return None, {name: m.weight for name, m in means.items()}

        weights = None
        if not per_device:
            _, weights = scan(weigh, None, (micro, indices))
            weights = _sum(jax.tree.map(jnp.sum, weights))

        def accumulate(carry, slot):
            (grads, stats), (batch, index) = carry, slot
            more, parts, stats, found = gradient(stats, batch, index, weights)
            return (jax.tree.map(jnp.add, grads, more), stats), (parts, found)

        zeros = jax.tree.map(jnp.zeros_like, params)
        first = jax.tree.map(lambda x: x[0], micro)
        after = jax.eval_shape(lambda: forward(params, stats, first, 0)[1])
        # What the norms move differs between devices from now on.
        stats = jax.tree.map(lambda x, y: _vary(x, varying(y)), stats, after)
        (grads, stats), (parts, found) = scan(accumulate, (zeros, stats), (micro, indices))
        parts = jax.tree.map(jnp.sum, parts)

    # By these names jdet.preflight.collectives knows what is sent.
    with jax.named_scope("gradients"):
        grads, parts = jax.lax.psum((grads, parts), AXES)
    stats = _mean(stats)
    if per_device:
        shares = count * jax.lax.axis_size(AXES)
        grads, parts = jax.tree.map(lambda x: x / shares, (grads, parts))
    return sum(parts.values(), jnp.float32(0)), parts, grads, stats, found


def _unroll(mesh: Mesh, count: int) -> int:
    """Turns of a loop over micro-batches to write out: all on CPUs, one elsewhere.

    XLA computes the gradients of convolutions in loops dozens of times slower on CPUs
    (github.com/jax-ml/jax/issues/12868); the price is a longer compilation.
    """
    return count if mesh.devices.flat[0].platform == "cpu" else 1


def _vary(x: jax.Array, axes: Iterable[str] = AXES) -> jax.Array:
    """Types ``x`` as differing between devices along ``axes``, whichever it was reduced over."""
    missing = tuple(axis for axis in axes if axis not in varying(x))
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def _sum(tree: Any) -> Any:
    """The sum over all devices; the same everywhere."""
    with jax.named_scope("loss"):
        return jax.lax.psum(jax.tree.map(_vary, tree), AXES)


def _mean(tree: Any) -> Any:
    """The mean of leaves that differ between devices; frozen statistics stay as they are.

    It is over all devices, also where those of a team agree, so that XLA can send these leaves along
    with the gradients.
    """
    with jax.named_scope("statistics"):
        return jax.tree.map(lambda x: jax.lax.pmean(_vary(x), AXES) if varying(x) else x, tree)
