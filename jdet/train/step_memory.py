"""Whether a step will fit into memory, estimated before anything is compiled.

What the backward pass needs of the forward pass is known from tracing alone: the arrays that the gradient
of the losses keeps. A compiler may keep less, so that this is an estimate; ``jdet.describe --memory`` and
``jdet.search_batch`` compile the step and know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from jdet.parallel import device_memory
from jdet.parallel import mesh as mesh_lib
from jdet.train import gradient, optim, state
from jdet.train.partition import merge, split

PER_PIXEL = 32 * 1024
"""Bytes for each pixel of an input that no network of jdet exceeds: where these fit, nothing is traced."""


def warning(
    config: ConfigDict,
    make_detector: Callable[[], Any],
    shape: tuple[int, int],
    devices: Sequence[Any],
) -> str:
    """What to say at the start of a run of which a step will probably not fit; "" where it will.

    Args:
        config: complete config.
        make_detector: makes the detector without mesh axis; called where something is to be traced.
        shape: of the largest network input.
        devices: of the run.
    """
    images = mesh_lib.split_batch(config, len(devices))
    free = device_memory.free_memory(devices)
    if free is None or images * math.prod(shape) * PER_PIXEL < free:
        return ""
    fixed, kept = estimate(config, make_detector(), shape, images)
    if fixed + kept <= free:
        return ""
    fitting = int(images * max(free - fixed, 0) / kept)
    batch = fitting * len(devices) * config.train.accumulation
    remedy = (
        f"about {fitting} image(s) on each would, --config.train.batch_size={batch}"
        if fitting
        else "not even one image would"
    )
    return (
        f"a step with {images} image(s) of {shape[0]}×{shape[1]} on each device is estimated to need "
        f"{(fixed + kept) / 1e9:.1f} GB of the {free / 1e9:.1f} GB that are free, and may not fit; "
        f"{remedy}. "
        "--config.train.accumulation and --config.train.remat need less; python -m jdet.describe --memory "
        "compiles the step and measures it"
    )


def estimate(
    config: ConfigDict, detector: Any, shape: tuple[int, int], images: int
) -> tuple[int, int]:
    """Bytes of a device that a step needs: whatever the batch, and for its images.

    Args:
        config: complete config.
        detector: without mesh axis.
        shape: of the network input.
        images: of the batch.
    """
    params, stats = state.abstract_variables(detector, config, images)
    trains = optim.trainable(config.optimizer, params)
    own, others = split(params, trains)
    needs = tuple(getattr(detector, "needs", ()))
    batch = jax.eval_shape(lambda: state.zero_batch(config, images, shape, needs=needs))

    def kept(own, others, stats, batch):
        def loss(own):
            variables = state.variables(merge(own, others), stats)
            key = gradient.step_key(config.seed, 0)
            losses, _ = gradient.call_losses(detector, variables, batch, key)
            return sum(mean.total for mean in losses.values())

        return jax.vjp(loss, own)[1]

    traced = jax.make_jaxpr(kept)(own, others, stats, batch).jaxpr
    given = {id(var) for var in (*traced.invars, *traced.constvars)}
    arrays = {id(var): var.aval for var in traced.outvars if not hasattr(var, "val")}
    residuals = sum(_bytes(aval) for key, aval in arrays.items() if key not in given)
    moments = 1 if config.optimizer.name == "sgd" else 2
    copies = 1 + (
        1 if config.train.ema else 0
    )  # of everything; of what trains also gradient, moments
    fixed = copies * _all(params) + (1 + moments) * _all(own) + copies * _all(stats)
    return fixed, residuals + _all(batch)


def _bytes(array: Any) -> int:
    return math.prod(array.shape) * array.dtype.itemsize


def _all(tree: Any) -> int:
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(tree))
