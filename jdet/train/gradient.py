"""Loss and gradient of a whole batch, however it is split, and the one way to call a detector's losses.

A loss is a sum and a weight; both are added up over devices and micro-batches before the one division,
so that the result does not depend on how the batch is split. The optimiser step, the diagnosis of a
diverged run and the probe of the loss surface take their gradient from here; so can whatever else wants
to know it at some parameters, such as a calibration of the initial weights or an estimate of the noise:

    gradient = make_gradient(detector, mesh, config)
    found = gradient(params, stats, batch)  # the parameters need not be those of a TrainState
    norms = jax.tree.map(jnp.linalg.norm, found.gradient)

``params`` and ``stats`` lie on every device of the mesh (``mesh.replicated``) and the batch is split over
it (``mesh.to_global``). All that is found is the same on every device, but for ``samples``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from jdet.nn import randomness
from jdet.ops.vma import varying
from jdet.parallel.mesh import AXES, split_axes
from jdet.train import state
from jdet.train.diagnostics import sample_stats
from jdet.train.partition import merge, split
from jdet.types import Batch, Mean


class Gradient(NamedTuple):
    """Result of one pass over a batch.

    Attributes:
        loss: float32 scalar, the sum of the parts.
        parts: by name of the loss, float32 scalars.
        gradient: like the parameters, float32, summed over the batch; None where not asked for.
        stats: running statistics after the batch.
        samples: what the detector left in ``sample_stats.COLLECTION`` on this device, a leading axis
            for micro-batches where there are several; empty unless ``train.sample_stats``.
    """

    loss: jax.Array
    parts: dict[str, jax.Array]
    gradient: Any
    stats: Any
    samples: Any


def step_key(seed: int, step: Any) -> jax.Array:
    """The key of all that is random in a step, the same on every device and for every micro-batch."""
    return jax.random.fold_in(jax.random.key(seed), step)


def call_losses(
    detector: Any,
    variables: Mapping[str, Any],
    batch: Batch,
    key: jax.Array,
    *,
    train: bool = True,
    mutable: Sequence[str] = ("batch_stats",),
) -> tuple[dict[str, Mean], dict[str, Any]]:
    """The losses of a detector on some images, on one device.

    Whatever the detector draws follows from ``key`` and the images' ``batch.index`` alone
    (``jdet.nn.randomness``), so that the sum over parts of a batch is that over the whole.

    Args:
        detector: Linen module with ``losses(batch, *, train) -> dict[str, Mean]``.
        variables: "params" and, where the model has any, "batch_stats".
        batch: with arrays [B, …].
        key: of the step.
        train: as in training: statistics of the batch, dropout.
        mutable: collections that the call may change or fill.

    Returns:
        The loss parts, and the collections of ``mutable`` that there are.
    """
    with randomness.images(batch.index):
        return detector.apply(
            variables,
            batch,
            train=train,
            method="losses",
            mutable=list(mutable),
            rngs=randomness.streams(key),
        )


def make_gradient(
    detector: Any, mesh: Mesh, config: ConfigDict, *, wanted: Any = None
) -> Callable[..., Gradient]:
    """Compiles ``loss_and_gradient`` for a mesh.

    Args:
        detector: as in ``call_losses``.
        mesh: of the run.
        config: complete config.
        wanted: as in ``loss_and_gradient``.

    Returns:
        ``gradient(params, stats, batch, step=0) -> Gradient``, without ``samples``. Nothing is donated.
    """

    def run(params: Any, stats: Any, batch: Batch, step: jax.Array) -> Gradient:
        found = loss_and_gradient(
            detector, params, stats, batch, step=step, config=config, mesh=mesh, wanted=wanted
        )
        return found._replace(samples={})

    specs = (P(), P(), P(split_axes(mesh)), P())
    program = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=P()))
    return lambda params, stats, batch, step=0: program(params, stats, batch, jnp.int32(step))


def loss_and_gradient(
    detector: Any,
    params: Any,
    stats: Any,
    batch: Batch,
    *,
    step: jax.Array,
    config: ConfigDict,
    mesh: Mesh,
    wanted: Any = None,
) -> Gradient:
    """The training loss of a whole batch and its gradient; runs inside ``shard_map`` over ``mesh``,
    where the batch is split over ``split_axes(mesh)``.

    The loss is the sum over the detector's parts of ``total / max(weight, 1)``, with total and
    weight summed over the whole batch (``train.loss_norm = "global"``) or divided on every device
    and micro-batch and then averaged ("per_device", as Caffe does). Weights are constants to the
    gradient.

    With ``train.accumulation`` above 1 the rows of every device are cut into micro-batches. The
    global weights are needed before the first gradient, so a first pass asks the detector for the
    weights alone; they follow from the assignment, and the network is dropped from that pass where
    they do not depend on it. BatchNorm sees micro-batches as they are, and its running statistics
    follow them one by one.

    Args:
        detector: as in ``call_losses``.
        params: parameters, the same on every device.
        stats: running statistics; empty where the model has none.
        batch: this device's rows.
        step: int32 scalar; with ``config.seed`` it determines what is drawn.
        config: complete config.
        mesh: that the function runs on.
        wanted: bools like ``params``: the parameters to differentiate by; None: all. For the others
            nothing is computed in the backward pass and nothing is sent.
    """
    count = config.train.accumulation
    per_device = config.train.loss_norm == "per_device"
    mutable = ["batch_stats"]
    if config.train.sample_stats:
        mutable.append(sample_stats.COLLECTION)
    # Own copies of the parameters per device: gradients stay local until they are summed once.
    axes = split_axes(mesh)
    params = jax.tree.map(lambda x: _vary(x, axes), params)
    if wanted is None:
        wanted = jax.tree.map(lambda _: True, params)
    chosen, others = split(params, wanted)
    key = step_key(config.seed, step)

    def forward(chosen, stats, batch):
        """Loss parts of one micro-batch, the statistics after it, and its samples if asked for."""
        variables = state.variables(merge(chosen, others), stats)
        means, updates = call_losses(detector, variables, batch, key, mutable=mutable)
        means = {name: Mean(m.total, jax.lax.stop_gradient(m.weight)) for name, m in means.items()}
        found = updates.get(sample_stats.COLLECTION, {})
        return means, updates.get("batch_stats", stats), found

    def share(means, weights):
        """Contribution of this micro-batch to each loss part, on this device."""
        if weights is None:
            weights = {name: m.weight for name, m in means.items()}
            if not per_device:
                weights = _sum(weights, axes)
        return {name: m.total / jnp.maximum(weights[name], 1.0) for name, m in means.items()}

    def gradient(stats, batch, weights):
        def loss(chosen):
            means, new_stats, found = forward(chosen, stats, batch)
            parts, samples = jax.tree.map(lambda x: _vary(x, axes), (share(means, weights), found))
            return sum(parts.values()), (parts, new_stats, samples)

        grads, (parts, stats, found) = jax.grad(loss, has_aux=True)(chosen)
        return grads, parts, stats, found

    if count == 1:
        grads, parts, stats, found = gradient(stats, batch, None)
    else:
        micro = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
        scan = functools.partial(jax.lax.scan, unroll=_unroll(mesh, count))

        def weigh(_, batch):
            means, *_ = forward(chosen, stats, batch)
            return None, {name: m.weight for name, m in means.items()}

        weights = None
        if not per_device:
            _, weights = scan(weigh, None, micro)
            weights = _sum(jax.tree.map(jnp.sum, weights), axes)

        def accumulate(carry, batch):
            grads, stats = carry
            more, parts, stats, found = gradient(stats, batch, weights)
            return (jax.tree.map(jnp.add, grads, more), stats), (parts, found)

        zeros = jax.tree.map(jnp.zeros_like, chosen)
        first = jax.tree.map(lambda x: x[0], micro)
        after = jax.eval_shape(lambda: forward(chosen, stats, first)[1])
        # What the norms move differs between devices from now on.
        stats = jax.tree.map(lambda x, y: _vary(x, varying(y)), stats, after)
        (grads, stats), (parts, found) = scan(accumulate, (zeros, stats), micro)
        parts = jax.tree.map(jnp.sum, parts)

    # By these names jdet.preflight.collectives knows what is sent.
    with jax.named_scope("gradients"):
        grads, parts = jax.lax.psum((grads, parts), axes)
    stats = mean_statistics(stats)
    if per_device:
        shares = count * jax.lax.axis_size(AXES)
        grads, parts = jax.tree.map(lambda x: x / shares, (grads, parts))
    return Gradient(sum(parts.values(), jnp.float32(0)), parts, grads, stats, found)


def mean_statistics(stats: Any) -> Any:
    """The mean of leaves that differ between devices; frozen statistics stay as they are.

    It is over all devices, also where those of a team agree, so that XLA can send these leaves along
    with the gradients.
    """
    with jax.named_scope("statistics"):
        return jax.tree.map(lambda x: jax.lax.pmean(_vary(x), AXES) if varying(x) else x, stats)


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


def _sum(tree: Any, axes: tuple[str, ...]) -> Any:
    """The sum over all devices; the same everywhere."""
    with jax.named_scope("loss"):
        return jax.lax.psum(jax.tree.map(lambda x: _vary(x, axes), tree), axes)
